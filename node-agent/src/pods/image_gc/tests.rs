//! The collector over a runtime in memory.

use serde_json::json;

use super::*;
use crate::{
    Teardown,
    pods::tests::Node,
    runtime::{
        Runtime,
        fake::{FakeRuntime, REGISTRY},
    },
};

const MIB: u64 = 1 << 20;

/// A disk that is full until images go: what they take counts.
fn disk(runtime: &Arc<FakeRuntime>, capacity_bytes: u64, others: u64) -> Measure {
    let runtime = runtime.clone();
    Box::new(move |_| {
        let images: u64 = runtime.local_images().iter().map(|image| image.size_bytes).sum();
        Some(DiskUsage { capacity_bytes, available_bytes: capacity_bytes.saturating_sub(images + others) })
    })
}

fn local(runtime: &FakeRuntime) -> Vec<String> {
    runtime.local_images().into_iter().map(|image| image.id).collect()
}

/// Runs a pod of this image, pulled for it, and deletes it again if `goes`.
async fn pull(node: &Node, runtime: &FakeRuntime, name: &str, goes: bool) {
    node.api.put_pod(name, "", |pod| {
        pod["spec"]["terminationGracePeriodSeconds"] = 0.into();
        pod["spec"]["containers"][0]["image"] = format!("{REGISTRY}{name}:1").into();
    });
    node.wait_ready(name).await;
    if goes {
        node.api.delete_gracefully(name, 0);
        node.wait_gone(name).await;
        // Its container goes at about the same time.
        let unused = async {
            let id = format!("{REGISTRY}{name}:1");
            while runtime.images().await.unwrap().iter().any(|image| image.id == id && image.is_used) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), unused).await.expect("its container goes");
    }
}

fn collector(node: &Node, measure: Measure) -> Collector {
    Collector::new(node.pods.as_ref().unwrap().context.clone(), ImageGcPolicy::default(), measure)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pulls_brought_and_nothing_uses_goes_and_the_users_images_stay() {
    let (mut node, runtime) = Node::in_memory().await;
    runtime.add_image("built", "built:1", MIB);
    for (name, goes) in [("old", true), ("older", true), ("used", false)] {
        pull(&node, &runtime, name, goes).await;
    }
    let everything = ["built", "registry/old:1", "registry/older:1", "registry/used:1"];
    assert_eq!(local(&runtime), everything);
    // 4 of 5 MiB: at the low threshold of 80 %, and 2 more besides.
    let mut collector = collector(&node, disk(&runtime, 10 * MIB, 6 * MIB));
    collector.collect(collector.began).await.expect_err("nothing may go yet");
    assert_eq!(local(&runtime), everything, "they were only just found");
    let later = collector.began + Duration::from_secs(120);
    collector.collect(later).await.unwrap();
    assert_eq!(local(&runtime), ["built", "registry/used:1"]);
    collector.collect(later).await.unwrap();
    assert_eq!(local(&runtime), ["built", "registry/used:1"], "the disk is at its low threshold");
    node.stop_agent(Teardown::Keep).await;
    node.start_agent().await;
    let context = &node.pods.as_ref().unwrap().context;
    let known = runtime.local_images();
    assert!(!context.pulled_images.contains(&known[0]) && context.pulled_images.contains(&known[1]), "kept on disk");
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sandbox_images_of_earlier_agents_go_unless_somebody_named_them() {
    let (mut node, runtime) = Node::in_memory().await;
    runtime.add_image("earlier", "fairlead/sandbox:0123456789ab", MIB);
    runtime.add_image("other", "fairlead/sandboxes:1", MIB);
    let mut collector = collector(&node, disk(&runtime, 10 * MIB, 8 * MIB));
    collector.collect(collector.began).await.expect_err("nothing may go yet");
    collector.collect(collector.began + Duration::from_secs(120)).await.expect_err("the disk is full of other things");
    assert_eq!(local(&runtime), ["other"]);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_as_much_goes_as_is_wanted_and_too_little_is_an_event() {
    let (mut node, runtime) = Node::in_memory().await;
    pull(&node, &runtime, "one", true).await;
    pull(&node, &runtime, "two", true).await;
    let mut collector = collector(&node, disk(&runtime, 20 * MIB, 15 * MIB));
    collector.collect(collector.began).await.expect_err("nothing may go yet");
    let later = collector.began + Duration::from_secs(120);
    collector.collect(later).await.unwrap();
    assert_eq!(local(&runtime).len(), 1, "17 of 20 MiB are 85 %, 16 are 80 %");

    collector.measure = Arc::new(disk(&runtime, 20 * MIB, 18 * MIB));
    collector.collect_and_report(later).await;
    let message = node.wait_event("FreeDiskSpaceFailed").await;
    let expected = "Insufficient free disk space on the node's image filesystem (95% of 20.0 MiB used). Failed to free \
                    sufficient space by deleting unused images (freed 1048576 bytes).";
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(local(&runtime).len(), 0);
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_that_follow_one_another_are_an_event_about_the_node() {
    let (mut node, runtime) = Node::in_memory().await;
    pull(&node, &runtime, "one", true).await;
    let mut collector = collector(&node, disk(&runtime, 20 * MIB, 18 * MIB));
    collector.collect(collector.began).await.expect_err("nothing may go yet");
    let later = collector.began + Duration::from_secs(120);
    runtime.hold_images(true);
    collector.collect_and_report(later).await;
    collector.collect_and_report(later).await;
    let message = node.wait_event("ImageGCFailed").await;
    let expected = "wanted to free 3145728 bytes, but freed 0 bytes space with errors in image deletion: remove the \
                    image: read-only file system";
    assert_eq!(message, expected);
    let events = node.api.list("events");
    let event = events.iter().find(|event| event["reason"] == "ImageGCFailed").unwrap();
    assert_eq!(event["involvedObject"], json!({ "kind": "Node", "name": "n1", "uid": "n1" }));
    assert_eq!(event["count"], 1, "the first failure is only logged");
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_loses_what_pulls_brought_but_nothing_that_a_container_or_another_name_holds() {
    let Some(mut node) = Node::start().await else { return };
    let engine = node.engine.clone().expect("the node runs on an engine");
    for name in ["old:v1", "held:v1", "named:v1", "twice:v1"] {
        engine.import_as(name);
    }
    engine.docker(&["tag", "twice:v1", "twice:v2"]);
    let runtime = node.runtime.clone();
    let all = runtime.images().await.unwrap();
    let context = node.pods.as_ref().unwrap().context.clone();
    // As if pulls had brought them.
    let is_users = |tag: &String| tag == "hello:v1" || tag.starts_with("fairlead/");
    for image in all.iter().filter(|image| !image.tags.iter().any(is_users)) {
        context.pulled_images.note(&image.id, &[], &all);
    }
    engine.docker(&["create", "--name", "stopped", "held:v1", "/bin/sh"]);
    engine.docker(&["tag", "held:v1", "held:v2"]);
    engine.docker(&["tag", "named:v1", "backup:v1"]);
    let full = |_: PathBuf| Some(DiskUsage { capacity_bytes: 1 << 40, available_bytes: 0 });
    let mut collector = Collector::new(context, ImageGcPolicy::default(), Box::new(full));
    collector.collect(collector.began).await.expect_err("nothing may go yet");
    assert_eq!(runtime.images().await.unwrap().len(), all.len());
    let held = runtime.images().await.unwrap().into_iter().find(|image| image.tags.contains("held:v1")).unwrap();
    assert!(held.is_used && !runtime.remove_image(&held).await.unwrap(), "Docker keeps what a container is made from");
    let kept = runtime.images().await.unwrap().into_iter().find(|image| image.id == held.id).unwrap();
    assert_eq!(kept.tags, held.tags, "with all of its names");
    collector.collect(collector.began + Duration::from_secs(120)).await.expect_err("the disk is full of other things");
    let left = runtime.images().await.unwrap();
    let tags: Vec<&str> = left.iter().flat_map(|image| &image.tags).map(String::as_str).collect();
    let is_left = |name: &str| tags.contains(&name);
    assert!(["hello:v1", "held:v1", "named:v1", "backup:v1"].into_iter().all(is_left), "{tags:?}");
    assert!(!["old:v1", "twice:v1", "twice:v2"].into_iter().any(is_left), "{tags:?}");
    assert!(tags.iter().any(|tag| tag.starts_with("fairlead/sandbox:")), "{tags:?}");
    engine.docker(&["rm", "stopped"]);
    node.stop_agent(Teardown::Remove).await;
}

#[test]
fn sizes_are_written_as_the_kubelet_writes_them() {
    let sizes = [0, 1023, 1024, 1536, 10 * MIB, 5 << 30, 3 << 40, u64::MAX];
    let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10.0 MiB", "5.0 GiB", "3.0 TiB", "16777216.0 TiB"];
    assert_eq!(sizes.map(format_size), expected);
}
