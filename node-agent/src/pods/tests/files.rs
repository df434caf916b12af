//! Environment, volumes and the files by which a pod knows names.

use serde_json::json;

use super::*;

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_sees_what_its_spec_refers_to_and_later_versions_of_it() {
    let Some(mut node) = Node::start().await else { return };
    node.api.put("configmaps", "settings", json!({ "data": { "colour": "red" } }));
    node.api.put("secrets", "keys", json!({ "data": { "pass": base64("word") }, "type": "Opaque" }));
    node.api.put_pod("full", "", |pod| {
        pod["metadata"]["labels"] = json!({ "app": "x" });
        pod["spec"]["hostAliases"] = json!([{ "ip": "192.0.2.9", "hostnames": ["nine"] }]);
        pod["spec"]["volumes"] = json!([
            { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "keys", "secret": { "secretName": "keys", "defaultMode": 0o400 } },
            { "name": "me", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
            { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
        ]);
        pod["spec"]["containers"][0] = json!({
            "name": "app", "image": "hello:v1",
            "command": ["/bin/sh", "-c"],
            "args": ["echo '$(GREETING)'; cat /keys/pass; echo; cat /me/labels; echo; cat /one; echo; cat /etc/resolv.conf /etc/hosts; touch /memory/x; \
                      while ! test \"$(cat /settings/colour)\" = blue; do :; done; echo now blue; exec sleep 1000"],
            "env": [
                { "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "colour" } } },
                { "name": "GREETING", "value": "$(COLOUR) $(IP) $(PASS) $(NONE)" },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            ],
            "envFrom": [{ "secretRef": { "name": "none", "optional": true } }],
            "volumeMounts": [
                { "name": "settings", "mountPath": "/settings" },
                { "name": "settings", "mountPath": "/one", "subPath": "colour" },
                { "name": "keys", "mountPath": "/keys" },
                { "name": "me", "mountPath": "/me" },
                { "name": "memory", "mountPath": "/memory" },
            ],
        });
    });
    node.wait_ready("full").await;
    node.api.put("configmaps", "settings", json!({ "data": { "colour": "blue" } }));
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut log = String::new();
    while !log.contains("now blue") {
        assert!(Instant::now() < deadline, "{log}");
        log = node.logs("default/full/app").await;
    }
    for line in [
        "red $(IP) $(PASS) $(NONE)",
        "word",
        "app=\"x\"",
        "red",
        "nameserver 10.96.0.10",
        "127.0.0.1\tfull",
        "192.0.2.9\tnine",
        "options ndots:5",
    ] {
        assert!(log.lines().any(|l| l == line), "no line {line:?} in {log}");
    }
    node.api.delete_gracefully("full", 0);
    node.wait_gone("full").await;
    node.stop_agent(Teardown::Remove).await;
    let left: Vec<_> = std::fs::read_dir(node.data.path().join("node/pods")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_waited_for() {
    let Some(mut node) = Node::start().await else { return };
    let reason = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    node.api.put_pod("env", "exec sleep 1000", |pod| {
        pod["spec"]["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "later" } }]);
    });
    node.api.put_pod("volume", "exec sleep 1000", |pod| {
        pod["spec"]["volumes"] = json!([{ "name": "v", "configMap": { "name": "later" } }]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    });
    let pod = node.wait("env", "without its ConfigMap", |pod| reason(pod) == "CreateContainerConfigError").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"later\" not found");
    assert!(node.wait_event("FailedMount").await.contains("configmap \"later\" not found"));
    node.api.put("configmaps", "later", json!({ "data": { "a": "b" } }));
    node.wait_ready("env").await;
    node.wait_ready("volume").await;
    node.stop_agent(Teardown::Remove).await;
}
