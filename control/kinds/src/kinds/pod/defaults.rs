//! What Kubernetes fills in for a pod and for the pod template of a workload.
//!
//! Only what is missing is filled in: a second pass changes nothing. Values follow `SetDefaults_*` of the core API.

use serde_json::{Map, Value, json};

use super::{CONTAINER_LISTS, resources};
use crate::kinds::{persistent_volume_claim, volume_source};

/// Defaults of a Pod alone, on top of those of its spec.
pub fn pod(object: &mut Value) {
    fill(object, "spec", || json!({}));
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
            if host_network {
                items(container, "ports").for_each(port_of_host);
            }
        }
    }
    if !spec["resources"].is_null() {
        resources::default_of_pod(spec);
    }
    pod_spec(spec);
    fill(spec, "enableServiceLinks", || json!(true));
}

/// On the host's network a port is what it is. A template's ports are left to its pods.
fn port_of_host(port: &mut Value) {
    if port["hostPort"].as_i64().unwrap_or_default() == 0 {
        port["hostPort"] = port["containerPort"].clone();
    }
}

/// Defaults of a pod spec, of a Pod or in a template.
pub fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "restartPolicy", "Always");
    fill_text(spec, "schedulerName", "default-scheduler");
    fill(spec, "securityContext", || json!({}));
    fill(spec, "terminationGracePeriodSeconds", || json!(30));
    same_under_both_names(spec);
    for list in CONTAINER_LISTS {
        items(spec, list).for_each(container);
    }
    items(spec, "volumes").for_each(volume);
    if let Some(overhead) = spec.get_mut("overhead").filter(|overhead| overhead.is_object()) {
        let mut rounded = json!({"limits": overhead.take()});
        resources::round(&mut rounded);
        *overhead = rounded["limits"].take();
    }
    if let Some(resources) = spec.get_mut("resources") {
        resources::round(resources);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always answered.
pub fn same_under_both_names(spec: &mut Value) {
    let name = [&spec["serviceAccountName"], &spec["serviceAccount"]]
        .into_iter()
        .find_map(|v| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned));
    if let Some(name) = name {
        spec["serviceAccountName"] = name.as_str().into();
        spec["serviceAccount"] = name.into();
    }
}

/// `Always` for `:latest`, said or meant, else `IfNotPresent`.
pub fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    // A colon before the last slash belongs to a registry's port.
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match tag {
        // Nothing is meant by what is no name of an image.
        None if !is_repository(name) => "IfNotPresent",
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

/// Whether a text names a repository: `registry.example.com:5000/a/b-c`.
fn is_repository(name: &str) -> bool {
    let is_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
    };
    let path = name.split_once('/').filter(|(first, _)| is_host(first)).map_or(name, |(_, path)| path);
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_component = |component: &str| {
        component.starts_with(is_letter)
            && component.ends_with(is_letter)
            && component.chars().all(|c| is_letter(c) || matches!(c, '.' | '_' | '-'))
            && !["..", "___", "._", "_.", ".-", "-."].iter().any(|wrong| component.contains(wrong))
    };
    path.split('/').all(is_component)
}

fn container(container: &mut Value) {
    if !container.is_object() {
        return;
    }
    let policy = pull_policy(container["image"].as_str().unwrap_or_default());
    fill_text(container, "imagePullPolicy", policy);
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    fill(container, "resources", || json!({}));
    for port in items(container, "ports") {
        fill_text(port, "protocol", "TCP");
    }
    resources::round(&mut container["resources"]);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).filter(|p| p.is_object()) {
            for (field, value) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                if probe[field].as_i64().unwrap_or_default() == 0 {
                    probe[field] = value.into();
                }
            }
            if let Some(grpc) = probe.get_mut("grpc").filter(|g| g.is_object()) {
                fill(grpc, "service", || json!(""));
            }
            http_get(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            http_get(hook);
        }
    }
    for variable in items(container, "env") {
        let Some(source) = variable.get_mut("valueFrom") else { continue };
        if let Some(file) = source.get_mut("fileKeyRef") {
            fill(file, "optional", || json!(false));
        }
        field_ref(Some(source));
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet").filter(|g| g.is_object()) {
        fill_text(get, "path", "/");
        fill_text(get, "scheme", "HTTP");
    }
}

fn field_ref(source: Option<&mut Value>) {
    if let Some(field) = source.and_then(|s| s.get_mut("fieldRef")).filter(|f| f.is_object()) {
        fill_text(field, "apiVersion", "v1");
    }
}

fn volume(volume: &mut Value) {
    let Some(map) = volume.as_object_mut() else { return };
    if !map.iter().any(|(field, value)| field != "name" && !value.is_null()) {
        map.insert("emptyDir".into(), json!({}));
    }
    // 0644, as JSON has no octal numbers.
    const MODE: i64 = 0o644;
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            fill(source, "defaultMode", || json!(MODE));
        }
    }
    if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
        let policy = pull_policy(image["reference"].as_str().unwrap_or_default());
        fill_text(image, "pullPolicy", policy);
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        persistent_volume_claim::spec::default(claim);
        if let Some(resources) = claim.get_mut("resources") {
            resources::round(resources);
        }
    }
    volume_source::default(volume);
    if let Some(downward) = volume.get_mut("downwardAPI") {
        items(downward, "items").for_each(|item| field_ref(Some(item)));
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken").filter(|t| t.is_object()) {
                fill(token, "expirationSeconds", || json!(3600));
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                items(downward, "items").for_each(|item| field_ref(Some(item)));
            }
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let limits = container["resources"]["limits"].as_object().cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let resources = &mut container["resources"];
    if !resources["requests"].is_object() {
        resources["requests"] = Value::Object(Map::new());
    }
    for (name, limit) in limits {
        fill(&mut resources["requests"], &name, || limit);
    }
}

/// Sets a field that is missing or null.
pub fn fill(object: &mut Value, field: &str, value: impl FnOnce() -> Value) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(Value::is_null)
    {
        map.insert(field.to_owned(), value());
    }
}

/// Sets a text field that is missing, null or empty.
pub fn fill_text(object: &mut Value, field: &str, value: &str) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(|v| v.is_null() || v == "")
    {
        map.insert(field.to_owned(), value.into());
    }
}

fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("Nginx", "IfNotPresent"),
            ("a/b/../c", "IfNotPresent"),
            ("registry.example.com:5000/a/b-c__d", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/a/nginx:2", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_pod_gets_what_kubernetes_gives_it() {
        let mut object = json!({"spec": {"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
            "readinessProbe": {"httpGet": {"port": 80}}, "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}}]}});
        pod(&mut object);
        let spec = &object["spec"];
        let expected = json!({"name": "a", "image": "x:1", "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
            "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"});
        assert_eq!(spec["containers"][0], expected);
        assert_eq!(spec["volumes"][0], json!({"name": "v", "emptyDir": {}}));
        assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], 420);
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["enableServiceLinks"], true);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once);
    }
}
