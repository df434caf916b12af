//! StatefulSets: names, claims, order, partitions and rollbacks.

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};

use super::*;

fn stateful_set(name: &str, replicas: i32, patch: Value) -> Value {
    let mut set = json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "serviceName": "svc",
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "one"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}]}});
    for (key, value) in patch.as_object().expect("an object") {
        set["spec"][key] = value.clone();
    }
    set
}

fn available(replicas: i32) -> impl Fn(&StatefulSet) -> bool {
    move |set| {
        let Some(status) = &set.status else { return false };
        status.observed_generation == set.metadata.generation
            && status.replicas == replicas
            && status.available_replicas.unwrap_or(0) == replicas
    }
}

/// What `kubectl rollout status` waits for.
fn complete(replicas: i32) -> impl Fn(&StatefulSet) -> bool {
    move |set| {
        let Some(status) = &set.status else { return false };
        available(replicas)(set)
            && status.updated_replicas.unwrap_or(0) == replicas
            && status.current_revision == status.update_revision
    }
}

fn names<K: Resource>(objects: &[K]) -> Vec<String> {
    let mut names: Vec<String> = objects.iter().filter_map(|object| object.meta().name.clone()).collect();
    names.sort();
    names
}

fn images(pods: &[Pod]) -> Vec<String> {
    let mut pods: Vec<&Pod> = pods.iter().collect();
    pods.sort_by_key(|pod| pod.metadata.name.clone());
    pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_keep_their_names_and_claims_and_roll_out_behind_a_partition() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<StatefulSet>();
    let policy = json!({"whenScaled": "Delete", "whenDeleted": "Retain"});
    create_in_default(&api, stateful_set("web", 3, json!({"persistentVolumeClaimRetentionPolicy": policy}))).await;
    cluster.wait::<StatefulSet>("web", "complete", complete(3)).await;
    let pods = cluster.wait_list::<Pod>("app=web", "three", |pods| pods.len() == 3).await;
    assert_eq!(names(&pods), ["web-0", "web-1", "web-2"]);
    let claims = cluster.wait_list::<PersistentVolumeClaim>("app=web", "three", |claims| claims.len() == 3).await;
    assert_eq!(names(&claims), ["data-web-0", "data-web-1", "data-web-2"]);
    let first = cluster.wait_list::<ControllerRevision>("app=web", "one", |list| list.len() == 1).await;

    let two = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}},
        "template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    patch(&api, "web", two).await;
    cluster
        .wait::<StatefulSet>("web", "updated behind the partition", |set| {
            available(3)(set) && set.status.as_ref().is_some_and(|s| s.updated_replicas == Some(1))
        })
        .await;
    let canary = cluster.wait_list::<Pod>("app=web", "three", |pods| pods.len() == 3).await;
    assert_eq!(images(&canary), ["one", "one", "two"]);
    let deleted = cluster.api::<Pod>().delete("web-0", &Default::default()).await.expect("deleted");
    let old = deleted.left().and_then(|pod| pod.metadata.uid);
    let replaced = |pods: &[Pod]| pods.len() == 3 && pods.iter().all(|pod| pod.metadata.uid != old);
    let pods = cluster.wait_list::<Pod>("app=web", "replaced", replaced).await;
    assert_eq!(images(&pods), ["one", "one", "two"], "the old revision below the partition");
    patch(&api, "web", json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})).await;
    cluster.wait::<StatefulSet>("web", "complete", |s| s.metadata.generation == Some(3) && complete(3)(s)).await;
    let pods = cluster.wait_list::<Pod>("app=web", "three", |pods| pods.len() == 3).await;
    assert_eq!(images(&pods), ["two"; 3]);

    // As `kubectl rollout undo` does.
    patch(&api, "web", first[0].data.as_ref().expect("data").0.clone()).await;
    cluster.wait::<StatefulSet>("web", "rolled back", |s| s.metadata.generation == Some(4) && complete(3)(s)).await;
    let pods = cluster.wait_list::<Pod>("app=web", "three", |pods| pods.len() == 3).await;
    assert_eq!(images(&pods), ["one"; 3]);

    // Claims go with the pods that are scaled away, and are made anew.
    patch(&api, "web", json!({"spec": {"replicas": 1}})).await;
    cluster.wait::<StatefulSet>("web", "one", complete(1)).await;
    patch(&api, "web", json!({"spec": {"replicas": 2}})).await;
    cluster.wait::<StatefulSet>("web", "two", complete(2)).await;
    let left = cluster.wait_list::<PersistentVolumeClaim>("app=web", "two", |claims| claims.len() == 2).await;
    assert_eq!(names(&left), ["data-web-0", "data-web-1"]);
    let uid = |claims: &[PersistentVolumeClaim], name: &str| {
        claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(name)).and_then(|c| c.metadata.uid.clone())
    };
    assert_eq!(uid(&claims, "data-web-0"), uid(&left, "data-web-0"));
    assert_ne!(uid(&claims, "data-web-1"), uid(&left, "data-web-1"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parallel_set_starts_all_at_once_and_its_claims_go_with_it() {
    let cluster = Cluster::start(2).await;
    let api = cluster.api::<StatefulSet>();
    let patch = json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5},
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain", "whenDeleted": "Delete"}});
    create_in_default(&api, stateful_set("stuck", 4, patch)).await;
    // Their kubelet does nothing for pods of this name: none becomes ready.
    let pods = cluster.wait_list::<Pod>("app=stuck", "four", |pods| pods.len() == 4).await;
    assert_eq!(names(&pods), ["stuck-5", "stuck-6", "stuck-7", "stuck-8"]);
    let failed = json!({"status": {"phase": "Failed"}});
    let victim = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some("stuck-6")).expect("is there");
    cluster
        .api::<Pod>()
        .patch_status("stuck-6", &PatchParams::default(), &Patch::Merge(failed))
        .await
        .expect("patched");
    cluster
        .wait_list::<Pod>("app=stuck", "made again", |pods| {
            pods.len() == 4 && pods.iter().all(|pod| pod.metadata.uid != victim.metadata.uid)
        })
        .await;
    api.delete("stuck", &kube::api::DeleteParams::background()).await.expect("deleted");
    cluster.wait_list::<Pod>("app=stuck", "gone", <[Pod]>::is_empty).await;
    cluster.wait_list::<PersistentVolumeClaim>("app=stuck", "gone", <[PersistentVolumeClaim]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_comes_when_the_claim_of_its_predecessor_is_gone_whatever_the_selector() {
    let cluster = Cluster::start(1).await;
    let (sets, claims) = (cluster.api::<StatefulSet>(), cluster.api::<PersistentVolumeClaim>());
    let spec = json!({"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]},
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"}});
    create_in_default(&sets, stateful_set("db", 1, spec)).await;
    cluster.wait::<StatefulSet>("db", "complete", complete(1)).await;
    let claim = claims.get("data-db-0").await.expect("read");
    patch(&claims, "data-db-0", json!({"metadata": {"finalizers": ["example.com/backup"]}})).await;
    patch(&sets, "db", json!({"spec": {"replicas": 0}})).await;
    cluster.wait_list::<Pod>("app=db", "gone", <[Pod]>::is_empty).await;
    let going = |claim: &PersistentVolumeClaim| claim.metadata.deletion_timestamp.is_some();
    cluster.wait::<PersistentVolumeClaim>("data-db-0", "being deleted", going).await;
    // The next pod waits for the end of the claim, of which nothing but the claim's deletion tells.
    patch(&sets, "db", json!({"spec": {"replicas": 1}})).await;
    let seen =
        |set: &StatefulSet| set.status.as_ref().is_some_and(|s| s.observed_generation == set.metadata.generation);
    cluster.wait::<StatefulSet>("db", "looked at", seen).await;
    let let_go = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/backup"]}});
    patch(&claims, "data-db-0", let_go).await;
    cluster.wait::<StatefulSet>("db", "complete", complete(1)).await;
    let another = claims.get("data-db-0").await.expect("read");
    assert_ne!(another.metadata.uid, claim.metadata.uid);
    cluster.stop().await;
}
