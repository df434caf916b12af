//! An object of each kind of workloads, volumes, quotas and policies, from creation to deletion.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Server;
use crate::kinds::{Kind, Kinds};

/// A manifest of each kind: version, kind, and all but its name.
fn manifests() -> Vec<(&'static str, &'static str, Value)> {
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("OnFailure");
    let selector = json!({"matchLabels": {"app": "a"}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}});
    let job = json!({"template": once});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    vec![
        ("v1", "PodTemplate", json!({"template": template})),
        ("v1", "ReplicationController", json!({"spec": {"replicas": 2, "template": template}})),
        ("v1", "ResourceQuota", json!({"spec": {"hard": {"pods": "10", "requests.cpu": "2"}}})),
        ("v1", "LimitRange", json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "0.5"}}]}})),
        (
            "v1",
            "PersistentVolume",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/data"}}}),
        ),
        ("v1", "PersistentVolumeClaim", json!({"spec": claim})),
        ("apps/v1", "ControllerRevision", json!({"revision": 1, "data": {"spec": {}}})),
        ("apps/v1", "DaemonSet", json!({"spec": {"selector": selector, "template": template}})),
        (
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"selector": selector, "template": template, "serviceName": "s",
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}]}}),
        ),
        ("apps/v1", "Deployment", json!({"spec": {"selector": selector, "template": template}})),
        ("apps/v1", "ReplicaSet", json!({"spec": {"selector": selector, "template": template}})),
        ("autoscaling/v2", "HorizontalPodAutoscaler", json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target}})),
        (
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}}),
        ),
        ("batch/v1", "Job", json!({"spec": job})),
        ("batch/v1", "CronJob", json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job}}})),
        ("node.k8s.io/v1", "RuntimeClass", json!({"handler": "runc"})),
        ("policy/v1", "PodDisruptionBudget", json!({"spec": {"minAvailable": 1, "selector": selector}})),
        ("scheduling.k8s.io/v1", "PriorityClass", json!({"value": 1000})),
    ]
}

fn path(kind: &Kind) -> String {
    let root = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
    let namespace = if kind.namespaced { "/namespaces/default" } else { "" };
    format!("{root}/{}{namespace}/{}", kind.version, kind.plural)
}

#[tokio::test]
async fn an_object_of_each_kind_is_made_shown_sent_back_and_deleted() {
    let server = Server::start().await;
    let kinds = Kinds::built_in();
    for (version, kind, mut object) in manifests() {
        let kind: Arc<Kind> = kinds.by_api_version(version, kind).unwrap();
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind.kind);
        object["metadata"] = json!({"name": "x"});
        let path = path(&kind);
        let made = server.post(&path, object).await;
        assert_eq!(made.code, 201, "{kind:?}: {}", made.json);
        let one = format!("{path}/x");
        let table = server.get_as(&one, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
        let cells = table.json["rows"][0]["cells"].as_array().map(Vec::len);
        assert_eq!(cells, table.json["columnDefinitions"].as_array().map(Vec::len), "{kind:?}: {}", table.json);
        let again = server.put(&one, made.json.clone()).await;
        assert_eq!((again.code, &again.json), (200, &made.json), "{kind:?}: sent back, it stays as it was");
        if kind.has("status") {
            let reported = server.put(&format!("{one}/status"), made.json.clone()).await;
            assert_eq!((reported.code, &reported.json), (200, &made.json), "{kind:?}");
        }
        if kind.has("scale") {
            let scaled = server.merge(&format!("{one}/scale"), json!({"spec": {"replicas": 3}})).await;
            assert_eq!((scaled.code, &scaled.json["spec"]["replicas"]), (200, &json!(3)), "{kind:?}: {}", scaled.json);
            assert_eq!(scaled.json["status"]["selector"], "app=a", "{kind:?}");
        }
        let gone = server.delete(&one, json!({"propagationPolicy": "Background"})).await;
        assert_eq!(gone.code, 200, "{kind:?}: {}", gone.json);
        if ["PersistentVolume", "PersistentVolumeClaim", "VolumeAttributesClass"].contains(&&*kind.kind) {
            // Its controller, which does not run here, sees that nothing uses it.
            let unused = server.merge(&one, json!({"metadata": {"finalizers": null}})).await;
            assert_eq!(unused.code, 200, "{kind:?}: {}", unused.json);
        }
        assert_eq!(server.get(&one).await.code, 404, "{kind:?}");
    }
}

#[tokio::test]
async fn an_autoscaler_is_one_object_in_both_versions() {
    const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let server = Server::start().await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let old = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}});
    let made = server.post(V1, old).await;
    assert_eq!((made.code, &made.json["apiVersion"]), (201, &json!("autoscaling/v1")), "{}", made.json);
    let new = server.get(&format!("{V2}/x")).await.json;
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50, "{new}");
    let memory = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    assert_eq!(server.merge(&format!("{V2}/x"), json!({"spec": {"metrics": [memory]}})).await.code, 200);
    let old = server.get(&format!("{V1}/x")).await.json;
    assert!(old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].is_string(), "{old}");
    let patched = server.merge(&format!("{V1}/x"), json!({"spec": {"maxReplicas": 9}})).await;
    assert_eq!(patched.code, 200, "{}", patched.json);
    let new = server.get(&format!("{V2}/x")).await.json;
    assert_eq!((&new["spec"]["maxReplicas"], &new["spec"]["metrics"][0]), (&json!(9), &memory));
    assert!(new["metadata"]["annotations"].is_null(), "{new}");
}

#[tokio::test]
async fn component_statuses_are_made_when_they_are_read() {
    let server = Server::start().await;
    server.api.health().add("scheduler", &[], || Err(crate::health::CheckFailure::new("it waits for its restart")));
    let path = "/api/v1/componentstatuses";
    let list = server.get(path).await;
    assert_eq!((list.code, &list.json["kind"]), (200, &json!("ComponentStatusList")));
    let conditions = |n: usize| list.json["items"][n]["conditions"].clone();
    assert_eq!(conditions(0), json!([{"type": "Healthy", "status": "True", "message": "ok"}]));
    assert_eq!(conditions(1)[0]["status"], "False");
    let one = server.get(&format!("{path}/etcd-0")).await;
    assert_eq!((one.name(), &one.json["kind"]), ("etcd-0", &json!("ComponentStatus")));
    let table = server.get_as(path, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(table.json["rows"][1]["cells"], json!(["scheduler", "Unhealthy", "it waits for its restart", ""]));
    let selected = server.get(&format!("{path}?fieldSelector=metadata.name%3Dscheduler")).await;
    assert_eq!(selected.json["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.get_as(path, "application/vnd.kubernetes.protobuf").await.code, 200);
    assert_eq!(server.get(&format!("{path}/none")).await.reason(), (404, "NotFound"));
    assert_eq!(server.get(&format!("{path}?watch=true")).await.code, 405);
    assert_eq!(server.post(path, json!({"metadata": {"name": "a"}})).await.code, 405);
    assert_eq!(server.delete(&format!("{path}/etcd-0"), json!({})).await.code, 405);
}
