//! The built-in admission plugins through the API: what they fill in, refuse and warn of.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Answer, Server, config_map, pod};
use crate::{
    admission::quota,
    kinds::{BuiltIn, Kind},
};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

/// A server whose quotas are counted.
async fn counting() -> Server {
    let mut server = Server::start().await;
    let stop = CancellationToken::new();
    let task = quota::run(server.api.store_handle(), server.api.kinds().clone(), stop.clone());
    tokio::spawn(task);
    server._tasks = Some(stop.drop_guard());
    server
}

async fn limit(server: &Server, name: &str, spec: Value) {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec});
    assert_eq!(server.post(QUOTAS, quota).await.code, 201);
    until(server, name, |status| status["hard"].is_object()).await;
}

/// Waits until the status of a quota is as `is` says.
async fn until(server: &Server, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut changes = server.api.store().watch("resourcequotas", 0).unwrap();
    loop {
        let status = server.get(&format!("{QUOTAS}/{name}")).await.json["status"].clone();
        if is(&status) {
            return status;
        }
        let next = tokio::time::timeout(std::time::Duration::from_secs(60), changes.next()).await;
        next.unwrap_or_else(|_| panic!("{status}")).unwrap();
    }
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("warning").iter().filter_map(|warning| warning.to_str().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_the_same_time_never_exceed_a_quota_together() {
    let server = Arc::new(counting().await);
    limit(&server, "q", json!({"hard": {"count/configmaps": "40", "configmaps": "50"}})).await;
    let writers = (0..64).map(|n| {
        let server = server.clone();
        tokio::spawn(async move { server.post(MAPS, config_map(&format!("m{n}"), json!({}))).await })
    });
    let answers: Vec<Answer> = futures::future::try_join_all(writers).await.unwrap();
    let created = answers.iter().filter(|answer| answer.code == 201).count();
    assert_eq!(created, 40);
    let words = "forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=40, limited: \
        count/configmaps=40";
    for refused in answers.iter().filter(|answer| answer.code != 201) {
        assert_eq!(refused.reason(), (403, "Forbidden"));
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    let used = server.get(&format!("{QUOTAS}/q")).await.json["status"]["used"].clone();
    assert_eq!(used, json!({"configmaps": "40", "count/configmaps": "40"}));
    assert_eq!(server.get(MAPS).await.json["items"].as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn a_quota_counts_objects_of_a_kind_as_soon_as_that_is_served() {
    let server = counting().await;
    limit(&server, "q", json!({"hard": {"count/widgets.example.com": "1", "count/configmaps": "9"}})).await;
    let counted = |status: &Value| !status["used"]["count/configmaps"].is_null();
    assert!(until(&server, "q", counted).await["used"]["count/widgets.example.com"].is_null());
    let plain = Kind::from(&BuiltIn::PLAIN);
    let widgets = Kind { group: "example.com".into(), kind: "Widget".into(), plural: "widgets".into(), ..plain };
    server.api.kinds().add(widgets).unwrap();
    until(&server, "q", |status| status["used"]["count/widgets.example.com"] == "0").await;
}

#[tokio::test]
async fn a_quota_limits_the_devices_of_a_class() {
    const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let server = counting().await;
    let (count, devices) = ("count/resourceclaims.resource.k8s.io", "gpu.deviceclass.resource.k8s.io/devices");
    limit(&server, "q", json!({"hard": {count: "5", devices: "3"}})).await;
    until(&server, "q", |status| status["used"][devices] == "0").await;
    let claim = |name: &str, count: i64| {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}});
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name},
            "spec": {"devices": {"requests": [request]}}})
    };
    let made = server.post(CLAIMS, claim("a", 2)).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let refused = server.post(CLAIMS, claim("b", 2)).await;
    let words = format!(
        "resourceclaims.resource.k8s.io \"b\" is forbidden: exceeded quota: q, requested: {devices}=2, used: \
         {devices}=2, limited: {devices}=3"
    );
    assert_eq!((refused.code, refused.message()), (403, words.as_str()));
    assert_eq!(server.delete(&format!("{CLAIMS}/a"), json!({})).await.code, 200);
    until(&server, "q", |status| status["used"][devices] == "0" && status["used"][count] == "0").await;
    assert_eq!(server.post(CLAIMS, claim("b", 2)).await.code, 201);
}

#[tokio::test]
async fn a_quota_is_charged_with_the_write_and_replenished_by_the_deletion() {
    let server = counting().await;
    limit(&server, "q", json!({"hard": {"pods": "2", "requests.cpu": "1", "secrets": "1"}})).await;
    let refused = server.post(PODS, pod("silent")).await;
    let words = "pods \"silent\" is forbidden: failed quota: q: must specify requests.cpu for: c";
    assert_eq!((refused.code, refused.message()), (403, words));
    let mut first = pod("a");
    first["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "600m"}});
    let dry = server.post(&format!("{PODS}?dryRun=All"), first.clone()).await;
    assert_eq!(dry.code, 201);
    let used = || async { server.get(&format!("{QUOTAS}/q")).await.json["status"]["used"].clone() };
    assert_eq!(used().await, json!({"pods": "0", "requests.cpu": "0", "secrets": "0"}), "a dry run takes nothing");
    assert_eq!(server.post(PODS, first.clone()).await.code, 201);
    assert_eq!(used().await, json!({"pods": "1", "requests.cpu": "600m", "secrets": "0"}));
    first["metadata"]["name"] = json!("b");
    let refused = server.post(PODS, first.clone()).await;
    assert_eq!(
        refused.message(),
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: \
        requests.cpu=1"
    );
    assert_eq!(server.delete(&format!("{PODS}/a"), json!({})).await.code, 200);
    until(&server, "q", |status| status["used"]["pods"] == "0").await;
    assert_eq!(server.post(PODS, first).await.code, 201);
    let over = json!({"status": {"phase": "Succeeded"}});
    assert_eq!(server.merge(&format!("{PODS}/b/status"), over).await.code, 200);
    let status = until(&server, "q", |status| status["used"]["pods"] == "0").await;
    assert_eq!(status["used"]["requests.cpu"], "0", "a pod that is over takes nothing");
    let raised = json!({"spec": {"hard": {"pods": "9"}}});
    assert_eq!(server.merge(&format!("{QUOTAS}/q"), raised).await.code, 200);
    until(&server, "q", |status| status["hard"]["pods"] == "9").await;
}

#[tokio::test]
async fn a_limit_range_fills_in_and_bounds() {
    let server = Server::start().await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "1", "memory": "1Gi"},
            "max": {"cpu": "2"}}]}});
    assert_eq!(server.post("/api/v1/namespaces/default/limitranges", range).await.code, 201);
    let made = server.post(PODS, pod("p")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(made.json["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
    assert_eq!(made.json["status"]["qosClass"], "Guaranteed", "told from what was filled in");
    let note = "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c";
    assert_eq!(made.json["metadata"]["annotations"]["kubernetes.io/limit-ranger"], note);
    let mut greedy = pod("greedy");
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "3"}});
    let refused = server.post(PODS, greedy).await;
    let words = "pods \"greedy\" is forbidden: maximum cpu usage per Container is 2, but limit is 3";
    assert_eq!((refused.code, refused.message()), (403, words));
    let labelled = server.merge(&format!("{PODS}/p"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled.code, 200);
}

#[tokio::test]
async fn a_namespace_says_which_pods_it_takes() {
    let server = Server::start().await;
    assert_eq!(server.post(PODS, pod("before")).await.code, 201);
    let labels = |mode: &str, level: &str| {
        let key = format!("pod-security.kubernetes.io/{mode}");
        json!({"metadata": {"labels": {key: level}}})
    };
    let namespace = "/api/v1/namespaces/default";
    let wrong = server.merge(namespace, labels("enforce", "strict")).await;
    assert_eq!(wrong.code, 422);
    assert!(wrong.message().ends_with("must be one of privileged, baseline, restricted"), "{}", wrong.message());
    let stricter = server.merge(namespace, labels("enforce", "restricted")).await;
    assert_eq!(stricter.code, 200);
    let told = warnings(&stricter);
    assert!(told[0].contains("existing pods in namespace"), "{told:?}");
    assert!(
        told[1].contains(
            "before: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
        ),
        "{told:?}"
    );
    let refused = server.post(PODS, pod("p")).await;
    assert_eq!(refused.reason(), (403, "Forbidden"));
    let words = "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
        (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities";
    assert!(refused.message().starts_with(words), "{}", refused.message());
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let made = server.post("/apis/apps/v1/namespaces/default/deployments", deployment).await;
    assert_eq!(made.code, 201, "only its pods are refused");
    assert!(warnings(&made)[0].contains("would violate PodSecurity"), "{:?}", warnings(&made));
    assert_eq!(server.merge(namespace, labels("enforce", "privileged")).await.code, 200);
    assert_eq!(server.post(PODS, pod("p")).await.code, 201);
}

#[tokio::test]
async fn of_two_plugins_the_first_in_kubernetes_order_refuses() {
    let server = Server::start().await;
    let restricted = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    assert_eq!(server.merge("/api/v1/namespaces/default", restricted).await.code, 200);
    let enforces = json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    assert_eq!(server.merge("/api/v1/namespaces/default/serviceaccounts/default", enforces).await.code, 200);
    let mut wrong = pod("p");
    wrong["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    let refused = server.post(PODS, wrong).await;
    let words = "pods \"p\" is forbidden: volume with secret.secretName=\"s\" is not allowed because service account \
        default does not reference that secret";
    assert_eq!((refused.code, refused.message()), (403, words), "ServiceAccount comes before PodSecurity");
}

#[tokio::test]
async fn a_pod_gets_what_its_classes_and_its_account_say() {
    let server = Server::start().await;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"},
        "value": 1000, "preemptionPolicy": "Never"});
    assert_eq!(server.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.code, 201);
    let runtime = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata"},
        "handler": "kata", "overhead": {"podFixed": {"cpu": "100m"}}});
    assert_eq!(server.post("/apis/node.k8s.io/v1/runtimeclasses", runtime).await.code, 201);
    let account = json!({"imagePullSecrets": [{"name": "pull"}]});
    let path = "/api/v1/namespaces/default/serviceaccounts/default";
    assert_eq!(server.merge(path, account).await.code, 200);
    let mut classy = pod("p");
    classy["spec"]["priorityClassName"] = json!("high");
    classy["spec"]["runtimeClassName"] = json!("kata");
    let made = server.post(PODS, classy.clone()).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let spec = &made.json["spec"];
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    assert_eq!((&spec["overhead"], &spec["imagePullSecrets"]), (&json!({"cpu": "100m"}), &json!([{"name": "pull"}])));
    for (field, words) in [
        ("priorityClassName", "pods \"q\" is forbidden: no PriorityClass with name none was found"),
        ("runtimeClassName", "pods \"q\" is forbidden: pod rejected: RuntimeClass \"none\" not found"),
        (
            "serviceAccountName",
            "pods \"q\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found",
        ),
    ] {
        let mut wrong = pod("q");
        wrong["spec"][field] = json!("none");
        let refused = server.post(PODS, wrong).await;
        assert_eq!((refused.code, refused.message()), (403, words));
    }
}

#[tokio::test]
async fn an_update_that_leaves_out_what_was_filled_in_changes_nothing() {
    let server = Server::start().await;
    let made = server.post(PODS, pod("p")).await.json;
    let mut sent = made.clone();
    for field in ["tolerations", "priority", "preemptionPolicy"] {
        sent["spec"].as_object_mut().unwrap().shift_remove(field);
    }
    let updated = server.put(&format!("{PODS}/p"), sent).await;
    assert_eq!(updated.code, 200, "{}", updated.text);
    assert_eq!(updated.json["spec"], made["spec"]);
    assert_eq!(updated.json["metadata"]["generation"], made["metadata"]["generation"]);
    assert_eq!(updated.json["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let server = Server::start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}});
    assert_eq!(server.post("/api/v1/namespaces", namespace).await.code, 201);
    let (made, ()) = tokio::join!(server.post("/api/v1/namespaces/new/pods", pod("p")), server.add_account("new"));
    assert_eq!(made.code, 201, "{}", made.text);
}

#[tokio::test]
async fn a_bound_pod_has_the_zone_of_its_node_and_a_new_node_takes_no_pods() {
    let server = Server::start().await;
    let zone = "topology.kubernetes.io/zone";
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {zone: "z1"}}});
    let made = server.post("/api/v1/nodes", node).await;
    assert_eq!(made.json["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    assert_eq!(server.post(PODS, pod("p")).await.code, 201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(server.post(&format!("{PODS}/p/binding"), binding).await.code, 201);
    let bound = server.call(Method::GET, &format!("{PODS}/p"), &[], "").await;
    assert_eq!(bound.json["metadata"]["labels"][zone], "z1");
}

#[tokio::test]
async fn a_write_is_warned_of_what_does_nothing() {
    let server = Server::start().await;
    let mut hidden = pod("web.example");
    hidden["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let made = server.post(PODS, hidden).await;
    let told = warnings(&made);
    assert_eq!((made.code, told.len()), (201, 2), "{told:?}");
    assert!(told[0].contains("metadata.name: this is used in the Pod's hostname"), "{told:?}");
    assert!(told[1].contains("spec.containers[0].env[1]: hides previous definition of"), "{told:?}");
    let headless = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}], "externalIPs": ["1.2.3.4"]}});
    let made = server.post("/api/v1/namespaces/default/services", headless).await;
    assert!(warnings(&made)[0].contains("spec.externalIPs is ignored for headless services"), "{}", made.text);
    assert_eq!(warnings(&server.post(PODS, pod("plain")).await), Vec::<&str>::new());
}
