//! Reasons why a Pod, or the spec in a pod template, may not be stored.
//!
//! Containers, volumes, affinity and security have files of their own; what may change in a stored pod is said by
//! `update`, `ephemeral_containers` and `resize`, what may be reported of it by `status`.

use serde_json::{Value, json};

use super::{
    affinity, annotations, containers, each_container, environment, resources, security, status, tolerations, update,
    volumes, windows,
};
use crate::kinds::{
    FieldError,
    field::{child, item},
    ip, names, priority_class,
    reading::{is_empty, items, text},
};

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;
const MAX_HOSTNAME_OVERRIDE: usize = 64;

/// Why `new` may not be stored in the place of `old`.
pub fn pod(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(old) = old else { return create(new) };
    let mut errors = Vec::new();
    let (now, was) = (&new["metadata"]["annotations"], &old["metadata"]["annotations"]);
    if now != was {
        errors.extend(annotations::changes(now, was));
        errors.extend(annotations::validate("metadata.annotations", now, &new["spec"]));
    }
    if new["spec"] != old["spec"] {
        errors.extend(pod_spec(new));
        errors.extend(update::pod(new, old));
    }
    if new["status"] != old["status"] {
        errors.extend(status::validate(new, old));
    }
    errors
}

fn create(pod: &Value) -> Vec<FieldError> {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let mut errors = annotations::validate("metadata.annotations", &metadata["annotations"], spec);
    errors.extend(pod_spec(pod));
    if !is_empty(&spec["ephemeralContainers"]) {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    if !text(spec, "nodeName").is_empty() && !is_empty(&spec["schedulingGates"]) {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden("spec.nodeName", why));
    }
    errors.extend(annotations::agree_with_fields("spec", &metadata["annotations"], spec));
    errors
}

/// Reasons against the spec of a pod, and against what templates alone may have.
pub fn pod_spec(pod: &Value) -> Vec<FieldError> {
    let spec = &pod["spec"];
    let mut errors = self::spec("spec", spec, Some(&pod["metadata"]));
    if text(spec, "serviceAccountName").is_empty() {
        for (v, volume) in items(&spec["volumes"]).enumerate() {
            for (s, source) in items(&volume["projected"]["sources"]).enumerate() {
                if !source["serviceAccountToken"].is_null() {
                    let path = format!("spec.volumes[{v}].projected.sources[{s}].serviceAccountToken");
                    let why = "must not be specified when serviceAccountName is not set";
                    errors.push(FieldError::forbidden(path, why));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in items(&spec[list]).enumerate() {
            errors.extend(containers::padded_image(&format!("spec.{list}[{i}]"), container));
        }
    }
    errors
}

/// Reasons against the annotations and the spec of a template at `path`.
pub fn of_template(path: &str, metadata: &Value, spec: &Value) -> Vec<FieldError> {
    let annotations = &metadata["annotations"];
    let mut errors = annotations::validate(&child(path, "annotations"), annotations, spec);
    let path = child(path, "spec");
    errors.extend(self::spec(&path, spec, None));
    errors.extend(annotations::agree_with_fields(&path, annotations, spec));
    errors
}

/// Reasons against a pod spec at `path`. `metadata` is that of a pod, which a template does not have.
fn spec(path: &str, spec: &Value, metadata: Option<&Value>) -> Vec<FieldError> {
    let at = |field: &str| child(path, field);
    let (mut errors, volumes) = volumes::validate(&at("volumes"), &spec["volumes"], metadata);
    errors.extend(resources::pod_claims(&at("resourceClaims"), metadata, &spec["resourceClaims"]));
    errors.extend(containers::validate(path, &containers::Pod { spec, volumes }));
    errors.extend(resources::of_pod(&at("resources"), spec));
    errors.extend(host_network_ports(path, spec, metadata.is_some()));
    let policies = ["Always", "OnFailure", "Never"];
    errors.extend(containers::one_of(at("restartPolicy"), &spec["restartPolicy"], &policies));
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(containers::one_of(at("dnsPolicy"), &spec["dnsPolicy"], &policies));
    errors.extend(names::labels(&at("nodeSelector"), &spec["nodeSelector"]));
    errors.extend(security::of_pod(&at("securityContext"), spec));
    errors.extend(affinity::validate(&at("affinity"), &spec["affinity"]));
    errors.extend(dns_config(&at("dnsConfig"), spec));
    errors.extend(gates(path, spec));
    errors.extend(affinity::topology_spread(&at("topologySpreadConstraints"), &spec["topologySpreadConstraints"]));
    errors.extend(windows::host_processes(path, spec));
    errors.extend(own_users(path, spec));
    errors.extend(hostname_override(path, spec));
    errors.extend(texts(path, spec, &[("serviceAccountName", names::subdomain), ("nodeName", names::subdomain)]));
    if spec["activeDeadlineSeconds"].as_i64().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(at("activeDeadlineSeconds"), &spec["activeDeadlineSeconds"], why));
    }
    errors.extend(texts(path, spec, &[("hostname", names::label), ("subdomain", names::label)]));
    errors.extend(tolerations::validate(&at("tolerations"), &spec["tolerations"]));
    errors.extend(host_aliases(&at("hostAliases"), &spec["hostAliases"]));
    errors.extend(texts(path, spec, &[("priorityClassName", names::subdomain)]));
    if !spec["runtimeClassName"].is_null() {
        errors.extend(FieldError::each(at("runtimeClassName"), &spec["runtimeClassName"], names::subdomain));
    }
    errors.extend(priority_class::preemption_policy(&at("preemptionPolicy"), &spec["preemptionPolicy"]));
    if !spec["overhead"].is_null() {
        errors.extend(resources::of_container(&at("overhead"), &json!({"limits": spec["overhead"]}), None));
    }
    errors.extend(windows::operating_system(path, spec));
    for (place, container) in each_container(spec) {
        errors.extend(environment::file_volumes(&child(path, &place), container, &spec["volumes"]));
    }
    errors
}

/// What is wrong with a text.
type CheckText = fn(&str) -> Vec<String>;

/// Names of other objects and of the host, where they are said.
fn texts(path: &str, spec: &Value, fields: &[(&str, CheckText)]) -> Vec<FieldError> {
    let said = fields.iter().filter(|(field, _)| !text(spec, field).is_empty());
    said.flat_map(|(field, check)| FieldError::each(child(path, field), &spec[*field], *check)).collect()
}

/// On the host's network a port is what it is.
fn host_network_ports(path: &str, spec: &Value, is_pod: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if spec["hostNetwork"] != true {
        return errors;
    }
    for (c, container) in items(&spec["containers"]).enumerate() {
        for (p, port) in items(&container["ports"]).enumerate() {
            let (host, own) = (port["hostPort"].as_i64().unwrap_or(0), port["containerPort"].as_i64().unwrap_or(0));
            if (is_pod || host != 0) && host != own {
                let path = format!("{path}.containers[{c}].ports[{p}].hostPort");
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(path, &json!(host), why));
            }
        }
    }
    errors
}

fn dns_config(path: &str, spec: &Value) -> Vec<FieldError> {
    let config = &spec["dnsConfig"];
    let (servers, searches) = (&config["nameservers"], &config["searches"]);
    if spec["dnsPolicy"] == "None" {
        if config.is_null() {
            return vec![FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None")];
        }
        if is_empty(servers) {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return vec![FieldError::required(child(path, "nameservers"), why)];
        }
    }
    let mut errors = Vec::new();
    if items(servers).len() > MAX_NAMESERVERS {
        let why = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(child(path, "nameservers"), servers, why));
    }
    for (i, server) in items(servers).enumerate() {
        errors.extend(ip::validate(format!("{path}.nameservers[{i}]"), server));
    }
    let path_of_searches = child(path, "searches");
    if items(searches).len() > MAX_SEARCHES {
        let why = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(&path_of_searches, searches, why));
    }
    let bytes: usize = items(searches).map(|search| search.as_str().map_or(0, str::len) + 1).sum();
    if bytes.saturating_sub(1) > MAX_SEARCH_BYTES {
        let why =
            format!("must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(&path_of_searches, searches, why));
    }
    for (i, search) in items(searches).enumerate().filter(|(_, search)| *search != ".") {
        let name = search.as_str().unwrap_or_default();
        let name = json!(name.strip_suffix('.').unwrap_or(name));
        errors.extend(FieldError::each(item(&path_of_searches, i), &name, names::subdomain_with_underscore));
    }
    for (i, option) in items(&config["options"]).enumerate() {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(format!("{path}.options[{i}]"), "must not be empty"));
        }
    }
    errors
}

/// What must hold before a pod is scheduled, or is ready.
fn gates(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, gate) in items(&spec["readinessGates"]).enumerate() {
        let path = format!("{path}.readinessGates[{i}].conditionType");
        errors.extend(FieldError::each(path, &json!(text(gate, "conditionType")), names::qualified_name));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, gate) in items(&spec["schedulingGates"]).enumerate() {
        let (path, name) = (format!("{path}.schedulingGates[{i}]"), json!(text(gate, "name")));
        errors.extend(FieldError::each(&path, &name, names::qualified_name));
        if !seen.insert(text(gate, "name")) {
            errors.push(FieldError::duplicate(path, &name));
        }
    }
    errors
}

/// A pod with users of its own shares nothing with the host.
fn own_users(path: &str, spec: &Value) -> Vec<FieldError> {
    if spec["hostUsers"] != false {
        return Vec::new();
    }
    let forbidden = |path: String| FieldError::forbidden(path, "when `hostUsers` is false");
    let mut errors = Vec::new();
    // As Kubernetes spells these fields here.
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec[field] == true {
            errors.push(forbidden(child(path, shown)));
        }
    }
    for (place, container) in each_container(spec) {
        if !is_empty(&container["volumeDevices"]) {
            errors.push(forbidden(format!("{path}.{place}.volumeDevices")));
        }
    }
    errors
}

fn hostname_override(path: &str, spec: &Value) -> Vec<FieldError> {
    let name = &spec["hostnameOverride"];
    let path = child(path, "hostnameOverride");
    let Some(text) = name.as_str() else { return Vec::new() };
    let mut errors = Vec::new();
    for field in ["setHostnameAsFQDN", "hostNetwork"].into_iter().filter(|field| spec[*field] == true) {
        errors.push(FieldError::forbidden(&path, &format!("may not be specified when {field} is true")));
    }
    if text.len() > MAX_HOSTNAME_OVERRIDE {
        errors.push(FieldError::too_long(&path, MAX_HOSTNAME_OVERRIDE));
    }
    errors.extend(FieldError::each(path, name, names::subdomain));
    errors
}

fn host_aliases(path: &str, aliases: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, alias) in items(aliases).enumerate() {
        errors.extend(ip::validate(format!("{path}[{i}].ip"), &json!(text(alias, "ip"))));
        for (h, name) in items(&alias["hostnames"]).enumerate() {
            errors.extend(FieldError::each(format!("{path}[{i}].hostnames[{h}]"), name, names::subdomain));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::pod::defaults;

    fn words(spec: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "p"}, "spec": spec});
        if object["spec"]["containers"].is_null() {
            object["spec"]["containers"] = json!([{"name": "a", "image": "x"}]);
        }
        defaults::pod(&mut object);
        pod(&object, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn usual_pods_are_valid() {
        for spec in [
            json!({}),
            json!({"terminationGracePeriodSeconds": -1, "hostNetwork": true,
                "containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}]}),
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.010"], "searches": [".", "_a.b."]}}),
            json!({"tolerations": [{"operator": "Exists"}], "hostAliases": [{"ip": "::1", "hostnames": ["a.b"]}]}),
            json!({"os": {"name": "linux"}, "overhead": {"cpu": "1m"}, "priorityClassName": "system-node-critical"}),
        ] {
            assert_eq!(words(spec.clone()), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        assert_eq!(
            words(json!({"restartPolicy": "Sometimes"})),
            [
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""
            ]
        );
        let in_order = words(json!({"runtimeClassName": "A", "tolerations": [{"operator": "In"}], "hostname": "B",
            "activeDeadlineSeconds": 0, "nodeName": "C", "priorityClassName": "D"}));
        let paths: Vec<&str> = in_order.iter().filter_map(|words| words.split([':', '[']).next()).collect();
        let expected =
            ["nodeName", "activeDeadlineSeconds", "hostname", "tolerations", "priorityClassName", "runtimeClassName"];
        let mut fields: Vec<&str> = paths.iter().map(|path| path.trim_start_matches("spec.")).collect();
        fields.dedup();
        assert_eq!(fields, expected);
        assert_eq!(
            words(json!({"dnsPolicy": "None"})),
            ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]
        );
        assert_eq!(
            words(json!({"dnsConfig": {"nameservers": ["x"], "options": [{}]}})),
            [
                "spec.dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "spec.dnsConfig.options[0]: Required value: must not be empty"
            ]
        );
        assert_eq!(
            words(json!({"hostUsers": false, "hostPID": true})),
            ["spec.HostPID: Forbidden: when `hostUsers` is false"]
        );
        assert_eq!(
            words(json!({"hostnameOverride": "a", "setHostnameAsFQDN": true})),
            ["spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true"]
        );
        assert_eq!(
            words(json!({"schedulingGates": [{"name": "a/b"}, {"name": "a/b"}], "nodeName": "n"})),
            [
                "spec.schedulingGates[1]: Duplicate value: \"a/b\"",
                "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"
            ]
        );
        assert_eq!(
            words(json!({"containers": [{"name": "a", "image": " x"}]})),
            ["spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace"]
        );
        let token =
            json!({"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
        assert_eq!(
            words(token),
            [
                "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"
            ]
        );
        let port = json!({"containerPort": 80, "hostPort": 81});
        assert_eq!(
            words(json!({"hostNetwork": true, "containers": [{"name": "a", "image": "x", "ports": [port]}]})),
            [
                "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"
            ]
        );
    }

    #[test]
    fn a_status_of_a_pod_that_would_not_be_valid_now_goes_on() {
        let old = json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": "Once"}, "status": {"phase": "Pending"}});
        let mut new = old.clone();
        new["status"]["phase"] = "Running".into();
        assert_eq!(pod(&new, Some(&old)), []);
    }
}
