//! How long pods take, beside what the engine itself takes. Prints; asserts only what no load can excuse.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it alone"]
async fn fifty_pods_from_created_to_ready_to_gone() {
    let Some(mut node) = Node::start().await else { return };
    for round in ["one", "two"] {
        let began = Instant::now();
        node.api.put_pod(round, "exec sleep 1000", |_| {});
        node.wait_ready(round).await;
        eprintln!("1 pod ready after {:?}", began.elapsed());
    }
    let names: Vec<_> = (0..50).map(|n| format!("pod-{n}")).collect();
    let (began, writes) = (Instant::now(), node.api.status_writes());
    for name in &names {
        node.api.put_pod(name, "exec sleep 1000", |pod| pod["spec"]["terminationGracePeriodSeconds"] = 0.into());
    }
    for name in &names {
        node.wait_ready(name).await;
    }
    eprintln!("50 pods ready after {:?} and {} status writes", began.elapsed(), node.api.status_writes() - writes);
    let began = Instant::now();
    for name in &names {
        node.api.delete_gracefully(name, 0);
    }
    for name in &names {
        node.wait_gone(name).await;
    }
    eprintln!("50 pods gone after {:?}", began.elapsed());
    node.stop_agent(Teardown::Remove).await;
}

/// The same containers made with nothing between: sandbox, container, both started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it alone"]
async fn the_engines_own_time_for_fifty_pods() {
    use futures::StreamExt;
    let Some(engine) = Engine::start() else { return };
    let runtime = Docker::connect(&engine.host(), "n1").await.unwrap();
    let began = Instant::now();
    let make = |n: usize| {
        let runtime = runtime.clone();
        async move {
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(serde_json::json!({
                "metadata": { "name": format!("p{n}"), "namespace": "default", "uid": format!("u{n}") },
                "spec": { "containers": [{ "name": "app", "image": "hello:v1", "command": ["/bin/sleep", "1000"] }] },
            }))
            .unwrap();
            let sandbox = runtime.create_sandbox(&super::super::container_spec::sandbox(&pod, 0)).await.unwrap();
            runtime.start(&sandbox).await.unwrap();
            let resolved = super::super::container_spec::Resolved {
                env: Vec::new(),
                mounts: Vec::new(),
                image: crate::runtime::Image {
                    id: String::new(),
                    engine_id: String::new(),
                    user: crate::runtime::ImageUser::Uid(0),
                },
                target: None,
                seccomp_profile: None,
                machine_memory: 1 << 30,
                host: super::super::security::Host { apparmor: false, se_linux: false },
            };
            let container = &pod.spec.as_ref().unwrap().containers[0];
            let spec = super::super::container_spec::container(&pod, container, &sandbox, 0, resolved).unwrap();
            let id = runtime.create_container(&spec).await.unwrap();
            runtime.start(&id).await.unwrap();
            [id, sandbox]
        }
    };
    let ids: Vec<_> = futures::stream::iter(0..50).map(make).buffer_unordered(50).collect().await;
    eprintln!("the engine's own time for 50 pods: {:?}", began.elapsed());
    let began = Instant::now();
    let removals = ids.iter().flatten().map(|id| runtime.remove(id));
    futures::stream::iter(removals).buffer_unordered(50).for_each(|result| async { result.unwrap() }).await;
    eprintln!("and to remove them: {:?}", began.elapsed());
}
