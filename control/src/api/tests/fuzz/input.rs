//! What targets are made of: valid objects, hostile values, and changes that turn the ones into nearly the others.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Map, Value, json};

/// A valid object of each kind whose fields differ much, with the path of its collection.
pub fn objects() -> Vec<(String, Value)> {
    let in_namespace = |group: &str, resource: &str| format!("/{group}/namespaces/default/{resource}");
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}],
            "env": [{"name": "A", "value": "b"},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": 1}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
            "lifecycle": {"preStop": {"exec": {"command": ["true"]}}}}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "terminationGracePeriodSeconds": 5, "securityContext": {"runAsUser": 1}}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template,
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}});
    let mut replica_set = deployment.clone();
    replica_set["kind"] = json!("ReplicaSet");
    replica_set["spec"]["strategy"].take();
    let mut old_deployment = deployment.clone();
    old_deployment["apiVersion"] = json!("apps/v1beta1");
    old_deployment["metadata"]["name"] = json!("old");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
        "type": "NodePort", "selector": {"app": "web"}, "externalIPs": ["192.0.2.9"], "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 53, "protocol": "UDP"}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web"},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": true}}],
        "ports": [{"name": "a", "port": 80}]});
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"},
        "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "web"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}});
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "web"}, "reason": "r", "message": "m",
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"}, "count": 1, "type": "Normal",
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "data": {"a": "YQ=="}});
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}, "metadata": {"name": "web",
        "labels": {"app": "web"}, "annotations": {"a/b": "c"}, "finalizers": ["example.org/f"], "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u", "blockOwnerDeletion": true}]}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "web"}, "spec": {
        "podCIDR": "10.244.9.0/24", "taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}});
    let service_account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"},
        "secrets": [{"name": "web"}], "imagePullSecrets": [{"name": "web"}], "automountServiceAccountToken": false});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": template["spec"]});
    vec![
        (in_namespace("apis/apps/v1", "deployments"), deployment),
        (in_namespace("apis/apps/v1beta1", "deployments"), old_deployment),
        (in_namespace("apis/apps/v1", "replicasets"), replica_set),
        (in_namespace("api/v1", "services"), service),
        (in_namespace("apis/discovery.k8s.io/v1", "endpointslices"), slice),
        (in_namespace("api/v1", "endpoints"), endpoints),
        (in_namespace("apis/coordination.k8s.io/v1", "leases"), lease),
        (in_namespace("api/v1", "events"), event),
        (in_namespace("api/v1", "secrets"), secret),
        (in_namespace("api/v1", "configmaps"), config_map),
        (in_namespace("api/v1", "serviceaccounts"), service_account),
        ("/api/v1/namespaces".into(), namespace),
        ("/api/v1/nodes".into(), node),
        (in_namespace("api/v1", "pods"), pod),
    ]
}

/// One of the objects, changed in a few places.
pub fn changed_object() -> impl Strategy<Value = (String, Value)> {
    (any::<Index>(), vec(change(), 0..4)).prop_map(|(which, changes)| {
        let (path, mut object) = which.get(&objects()).clone();
        changes.iter().for_each(|change| change.apply(&mut object));
        (path, object)
    })
}

/// A change of a JSON document at a place that it has.
#[derive(Clone, Debug)]
pub struct Change {
    at: Index,
    key: String,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    Replace(Value),
    Remove,
    Insert(Value),
    /// Puts a copy of the value at the second place here.
    Copy(Index),
}

/// A change at a random place.
pub fn change() -> impl Strategy<Value = Change> {
    let how = prop_oneof![
        4 => value().prop_map(How::Replace),
        1 => Just(How::Remove),
        2 => value().prop_map(How::Insert),
        1 => any::<Index>().prop_map(How::Copy),
    ];
    (any::<Index>(), key(), how).prop_map(|(at, key, how)| Change { at, key, how })
}

impl Change {
    /// Changes the document; nothing where the place does not exist.
    pub fn apply(&self, document: &mut Value) {
        let places = pointers(document);
        let pointer = self.at.get(&places).clone();
        let copied = match &self.how {
            How::Copy(from) => document.pointer(from.get::<String>(&places)).cloned(),
            _ => None,
        };
        let Some(place) = document.pointer_mut(&pointer) else { return };
        match (&self.how, place) {
            (How::Replace(value), place) => *place = value.clone(),
            (How::Copy(_), place) => *place = copied.unwrap_or_default(),
            (How::Remove, Value::Object(fields)) => {
                let name = self.at.index(fields.len().max(1));
                fields.retain({
                    let mut position = 0;
                    move |_, _| {
                        position += 1;
                        position != name + 1
                    }
                });
            }
            (How::Remove, Value::Array(items)) => items.truncate(items.len() / 2),
            (How::Remove, place) => *place = Value::Null,
            (How::Insert(value), Value::Object(fields)) => {
                fields.insert(self.key.clone(), value.clone());
            }
            (How::Insert(value), Value::Array(items)) => items.push(value.clone()),
            (How::Insert(value), place) => *place = value.clone(),
        }
    }
}

/// JSON pointers to everything in a document, itself included.
pub fn pointers(document: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(fields) => {
                let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
                fields.iter().for_each(|(name, value)| walk(value, &format!("{at}/{}", escaped(name)), found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, value)| walk(value, &format!("{at}/{index}"), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(document, "", &mut found);
    found
}

/// Names of fields that decoders look for, and others.
pub fn key() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "metadata",
        "name",
        "namespace",
        "labels",
        "annotations",
        "spec",
        "status",
        "type",
        "port",
        "ports",
        "key",
        "operator",
        "values",
        "resourceVersion",
        "uid",
        "generateName",
        "deletionTimestamp",
        "managedFields",
        "$patch",
        "$retainKeys",
        "$setElementOrder/ports",
        "$deleteFromPrimitiveList/finalizers",
        "items",
        "",
        "a/b",
        "~",
    ];
    prop_oneof![3 => prop::sample::select(KNOWN).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
}

/// Any JSON value, often one at the edge of what a field takes.
pub fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key(), inner), 0..4).prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn scalar() -> impl Strategy<Value = Value> {
    const TEXTS: &[&str] = &[
        "",
        "0",
        "-1",
        "100%",
        "101%",
        "-5%",
        "9223372036854775808",
        "1e400",
        "1Ki",
        "1.5e3m",
        "999999999999E",
        "-1n",
        "2026-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0000-00-00T00:00:00Z",
        "2026-01-01T00:00:00.1+99:99",
        "256.1.1.1",
        "::ffff:1.2.3.4",
        "10.96.0.1",
        "10.96.0.0/33",
        "metadata.name",
        "metadata.labels['a",
        "*",
        "$(A)",
        "a\u{0}b",
        "\u{202e}",
        "UDP",
        "None",
        "ClusterIP",
        "ExternalName",
        "Always",
        "In",
        "Exists",
        "../..",
        "/",
    ];
    const NUMBERS: &[i64] =
        &[0, -1, 1, 65535, 65536, 30000, i64::MAX, i64::MIN, i32::MAX as i64, i32::MIN as i64, 1 << 53];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(NUMBERS).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(TEXTS).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(Value::from("x".repeat(300))),
    ]
}
