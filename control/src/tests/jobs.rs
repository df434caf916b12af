//! Jobs from creation to their end, and their deletion after it.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Cluster, create_in_default, patch};

/// A Job whose pods run `image`, labelled `app: NAME`.
pub fn job(name: &str, image: &str, spec: Value) -> Value {
    let mut job = json!({"metadata": {"name": name}, "spec": {"template": {"metadata": {"labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        job["spec"][key] = value.clone();
    }
    job
}

/// The types and reasons of the conditions that hold.
pub fn conditions(job: &Job) -> Vec<String> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let holding = conditions.filter(|condition| condition.status == "True");
    holding.map(|c| format!("{} {}", c.type_, c.reason.as_deref().unwrap_or_default())).collect()
}

/// Whether the Job is complete or has failed.
pub fn is_finished(job: &Job) -> bool {
    conditions(job).iter().any(|condition| condition.starts_with("Complete") || condition.starts_with("Failed "))
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == "batch.kubernetes.io/job-tracking")
}

fn running(pods: &[Pod], count: usize) -> bool {
    let runs = |pod: &Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    };
    pods.len() == count && pods.iter().all(runs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_completes_and_its_pods_are_counted() {
    let cluster = Cluster::start(1).await;
    let api = cluster.api::<Job>();
    create_in_default(&api, job("sum", "exit-0", json!({"completions": 5, "parallelism": 2}))).await;
    let done = cluster.wait::<Job>("sum", "complete", is_finished).await;
    assert_eq!(conditions(&done), ["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"]);
    let status = done.status.expect("a status");
    assert_eq!((status.succeeded, status.failed, status.active, status.ready), (Some(5), None, None, Some(0)));
    assert!(status.completion_time.is_some() && status.start_time.is_some());
    let pods = cluster.wait_list::<Pod>("app=sum", "let go", |pods| !pods.iter().any(is_tracked)).await;
    assert_eq!(pods.len(), 5);
    api.delete("sum", &DeleteParams::background()).await.expect("deleted");
    cluster.wait_list::<Pod>("app=sum", "gone", <[Pod]>::is_empty).await;
    let short = job("short", "exit-0", json!({"ttlSecondsAfterFinished": 0}));
    create_in_default(&api, short).await;
    cluster.wait_list::<Pod>("app=short", "made", |pods| !pods.is_empty()).await;
    cluster.wait_list::<Job>("app=short", "deleted after it has finished", <[Job]>::is_empty).await;
    cluster.wait_list::<Pod>("app=short", "gone with it", <[Pod]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexed_job_runs_every_index_though_some_fail() {
    let cluster = Cluster::start(1).await;
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 0});
    create_in_default(&cluster.api::<Job>(), job("each", "exit-index", spec)).await;
    let failed = cluster.wait::<Job>("each", "failed", is_finished).await;
    assert_eq!(conditions(&failed), ["FailureTarget FailedIndexes", "Failed FailedIndexes"]);
    let status = failed.status.expect("a status");
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("0"), Some("1,2")));
    assert_eq!((status.succeeded, status.failed), (Some(1), Some(2)));
    let pods = cluster.wait_list::<Pod>("app=each", "three pods", |pods| pods.len() == 3).await;
    let mut names: Vec<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.hostname.clone()).collect();
    names.sort();
    assert_eq!(names, ["each-0", "each-1", "each-2"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_failure_policy_fails_a_job_with_the_pods_that_still_run() {
    let cluster = Cluster::start(1).await;
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "podFailurePolicy": {"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]}});
    create_in_default(&cluster.api::<Job>(), job("strict", "exit-index", spec)).await;
    let failed = cluster.wait::<Job>("strict", "failed", is_finished).await;
    assert_eq!(conditions(&failed), ["FailureTarget PodFailurePolicy", "Failed PodFailurePolicy"]);
    let message = failed.status.and_then(|status| status.conditions?.pop()?.message).unwrap_or_default();
    assert!(message.ends_with("failed with exit code 1 matching FailJob rule at index 0"), "{message}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_job_has_no_pods_and_its_deletion_takes_those_that_run() {
    let cluster = Cluster::start(1).await;
    let api = cluster.api::<Job>();
    create_in_default(&api, job("later", "long", json!({"parallelism": 2, "completions": 4, "suspend": true}))).await;
    let suspended =
        cluster.wait::<Job>("later", "suspended", |job| conditions(job) == ["Suspended JobSuspended"]).await;
    assert!(suspended.status.is_some_and(|status| status.start_time.is_none()));
    patch(&api, "later", json!({"spec": {"suspend": false}})).await;
    cluster.wait_list::<Pod>("app=later", "two running pods", |pods| running(pods, 2)).await;
    let ready = |job: &Job| job.status.as_ref().is_some_and(|status| status.ready == Some(2));
    let resumed = cluster.wait::<Job>("later", "ready", ready).await;
    assert!(resumed.status.is_some_and(|status| status.start_time.is_some() && status.active == Some(2)));
    patch(&api, "later", json!({"spec": {"suspend": true}})).await;
    cluster.wait_list::<Pod>("app=later", "gone", <[Pod]>::is_empty).await;
    let none =
        |job: &Job| job.status.as_ref().is_some_and(|status| status.terminating == Some(0) && status.active.is_none());
    let status = cluster.wait::<Job>("later", "without pods", none).await.status.expect("a status");
    assert_eq!(status.failed, None, "they did not fail");
    patch(&api, "later", json!({"spec": {"suspend": false}})).await;
    cluster.wait_list::<Pod>("app=later", "two running pods again", |pods| running(pods, 2)).await;
    api.delete("later", &DeleteParams::background()).await.expect("deleted");
    cluster.wait_list::<Pod>("app=later", "gone with the Job", <[Pod]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_adopted_and_pods_of_another_label_released() {
    let cluster = Cluster::start(1).await;
    let api = cluster.api::<Job>();
    let own = json!({"selector": {"matchLabels": {"app": "keep"}}, "manualSelector": true});
    create_in_default(&api, job("keep", "long", own)).await;
    let pods: Api<Pod> = cluster.api();
    let pod = cluster.wait_list::<Pod>("app=keep", "one pod", |pods| running(pods, 1)).await.remove(0);
    let name = pod.metadata.name.clone().expect("a name");
    let orphan = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
    pods.patch(&name, &PatchParams::default(), &orphan).await.expect("patched");
    let owned = |pod: &Pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.name == "keep");
    cluster.wait::<Pod>(&name, "adopted again", |pod| owned(pod) && is_tracked(pod)).await;
    patch(&pods, &name, json!({"metadata": {"labels": {"app": "other"}}})).await;
    cluster.wait::<Pod>(&name, "released", |pod| !owned(pod) && !is_tracked(pod)).await;
    cluster.wait_list::<Pod>("app=keep", "another pod", |pods| running(pods, 1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_another_controller_is_left_alone() {
    let cluster = Cluster::start(1).await;
    let api = cluster.api::<Job>();
    create_in_default(&api, job("theirs", "exit-0", json!({"managedBy": "example.com/jobs"}))).await;
    create_in_default(&api, job("ours", "exit-0", json!({}))).await;
    cluster.wait::<Job>("ours", "complete", is_finished).await;
    let theirs = api.get("theirs").await.expect("read");
    assert_eq!(theirs.status.and_then(|status| status.start_time), None);
    cluster.stop().await;
}
