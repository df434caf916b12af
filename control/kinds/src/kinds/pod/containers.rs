//! The containers of a pod: those that make it up, those that come first, and those that are added to look at it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    environment, handlers,
    mounts::{self, Volumes},
    resources, security,
};
use crate::kinds::{
    FieldError,
    field::{child, item},
    names, port,
    reading::{is_empty, items, text},
};

/// What the containers of one pod have in common.
pub struct Pod<'a> {
    pub spec: &'a Value,
    pub volumes: Volumes<'a>,
}

/// What is said of a field that ephemeral containers do not have.
pub const EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// Reasons against all containers of a pod spec at `path`.
pub fn validate(path: &str, pod: &Pod<'_>) -> Vec<FieldError> {
    let mut errors = apps(&child(path, "containers"), pod);
    errors.extend(inits(&child(path, "initContainers"), pod));
    errors.extend(ephemerals(&child(path, "ephemeralContainers"), pod));
    errors
}

fn apps(path: &str, pod: &Pod<'_>) -> Vec<FieldError> {
    let list = &pod.spec["containers"];
    if is_empty(list) {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, container) in items(list).enumerate() {
        let path = item(path, i);
        errors.extend(common(&path, container, pod));
        if !seen.insert(text(container, "name")) {
            errors.push(FieldError::duplicate(child(&path, "name"), &json!(text(container, "name"))));
        }
        errors.extend(handled(&path, container, pod));
        errors.extend(restart_policy(&path, container));
    }
    errors.extend(host_ports(path, list));
    errors
}

fn inits(path: &str, pod: &Pod<'_>) -> Vec<FieldError> {
    const ONCE: &str = "may not be set for init containers without restartPolicy=Always";
    let mut errors = Vec::new();
    let mut seen: BTreeSet<&str> = items(&pod.spec["containers"]).map(|c| text(c, "name")).collect();
    for (i, container) in items(&pod.spec["initContainers"]).enumerate() {
        let at = item(path, i);
        errors.extend(common(&at, container, pod));
        let sidecar = container["restartPolicy"] == "Always";
        if sidecar && !is_empty(&container["restartPolicyRules"]) {
            let why = "restartPolicyRules are not allowed for init containers with restart policy Always";
            errors.push(FieldError::forbidden(child(&at, "restartPolicyRules"), why));
        } else {
            let mut of_policy = restart_policy(&at, container);
            if container["restartPolicy"].is_null() {
                // The first says that a policy must be there. The rules are then not looked at.
                of_policy.truncate(1);
            }
            errors.append(&mut of_policy);
        }
        let name = text(container, "name");
        if seen.contains(name) {
            errors.push(FieldError::duplicate(child(&at, "name"), &json!(name)));
        } else if !name.is_empty() {
            seen.insert(name);
        }
        // Init containers run one after the other, so that each has the ports of the host for itself.
        errors.extend(host_ports(path, &json!([container])));
        if sidecar {
            errors.extend(handled(&at, container, pod));
        } else {
            let set = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"].into_iter();
            let set = set.filter(|field| !container[*field].is_null());
            errors.extend(set.map(|field| FieldError::forbidden(child(&at, field), ONCE)));
        }
    }
    errors
}

fn ephemerals(path: &str, pod: &Pod<'_>) -> Vec<FieldError> {
    // In the order of Kubernetes' struct. Those that are pointers there are set as soon as they are there.
    const FORBIDDEN: [(&str, bool); 9] = [
        ("ports", false),
        ("resources", false),
        ("resizePolicy", false),
        ("restartPolicy", true),
        ("restartPolicyRules", false),
        ("livenessProbe", true),
        ("readinessProbe", true),
        ("startupProbe", true),
        ("lifecycle", true),
    ];
    let is_set = |value: &Value, is_pointer: bool| if is_pointer { !value.is_null() } else { !is_empty(value) };
    let mut errors = Vec::new();
    let lists = ["containers", "initContainers"].into_iter();
    let others: BTreeSet<&str> = lists.flat_map(|list| items(&pod.spec[list])).map(|c| text(c, "name")).collect();
    let mut seen = others.clone();
    for (i, container) in items(&pod.spec["ephemeralContainers"]).enumerate() {
        let path = item(path, i);
        errors.extend(common(&path, container, pod));
        errors.extend(padded_image(&path, container));
        if !seen.insert(text(container, "name")) {
            errors.push(FieldError::duplicate(child(&path, "name"), &json!(text(container, "name"))));
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(child(&path, "targetContainerName"), &json!(target)));
        }
        for (field, _) in FORBIDDEN.into_iter().filter(|(field, pointer)| is_set(&container[*field], *pointer)) {
            errors.push(FieldError::forbidden(child(&path, field), EPHEMERAL));
        }
        for (i, mount) in items(&container["volumeMounts"]).enumerate() {
            for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !text(mount, field).is_empty()) {
                errors.push(FieldError::forbidden(format!("{path}.volumeMounts[{i}].{field}"), EPHEMERAL));
            }
        }
    }
    errors
}

/// Why an image's name has space around it. Templates may have such names.
pub fn padded_image(path: &str, container: &Value) -> Option<FieldError> {
    let image = text(container, "image");
    let padded = image.trim() != image;
    let why = "must not have leading or trailing whitespace";
    padded.then(|| FieldError::invalid(child(path, "image"), &container["image"], why))
}

fn common(path: &str, container: &Value, pod: &Pod<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(container, "name") {
        "" => errors.push(FieldError::required(child(path, "name"), "")),
        _ => errors.extend(FieldError::each(child(path, "name"), &container["name"], names::label)),
    }
    errors.extend(FieldError::missing(child(path, "image"), &container["image"]));
    let known = ["File", "FallbackToLogsOnError"];
    errors.extend(one_of(child(path, "terminationMessagePolicy"), &container["terminationMessagePolicy"], &known));
    errors.extend(ports(&child(path, "ports"), &container["ports"]));
    errors.extend(environment::variables(&child(path, "env"), &container["env"]));
    errors.extend(environment::sources(&child(path, "envFrom"), &container["envFrom"]));
    errors.extend(mounts::validate(path, container, &pod.volumes));
    errors.extend(pull_policy(child(path, "imagePullPolicy"), &container["imagePullPolicy"]));
    let claims: BTreeSet<&str> = items(&pod.spec["resourceClaims"]).map(|claim| text(claim, "name")).collect();
    errors.extend(resources::of_container(&child(path, "resources"), &container["resources"], Some(&claims)));
    errors.extend(resize_policy(&child(path, "resizePolicy"), container, pod.spec));
    let host_users = pod.spec["hostUsers"] != false;
    errors.extend(security::of_container(&child(path, "securityContext"), &container["securityContext"], host_users));
    errors
}

/// Why a text is no policy of pulling an image, of a container or a volume.
pub fn pull_policy(path: String, policy: &Value) -> Option<FieldError> {
    one_of(path, policy, &["Always", "IfNotPresent", "Never"])
}

/// Something, if a text is not there or is none of `known`.
pub fn one_of(path: String, value: &Value, known: &[&str]) -> Option<FieldError> {
    match value.as_str() {
        None | Some("") => Some(FieldError::required(path, "")),
        Some(_) => FieldError::unsupported(path, value, known),
    }
}

fn handled(path: &str, container: &Value, pod: &Pod<'_>) -> Vec<FieldError> {
    let grace = pod.spec["terminationGracePeriodSeconds"].as_i64();
    let mut errors = handlers::lifecycle(&child(path, "lifecycle"), &container["lifecycle"], grace);
    errors.extend(handlers::probes(path, container));
    errors
}

fn ports(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, entry) in items(list).enumerate() {
        let path = item(path, i);
        let name = text(entry, "name");
        if !name.is_empty() {
            let wrong = port::name(&child(&path, "name"), name);
            if wrong.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(child(&path, "name"), &entry["name"]));
            }
            errors.extend(wrong);
        }
        match entry["containerPort"].as_i64() {
            None | Some(0) => errors.push(FieldError::required(child(&path, "containerPort"), "")),
            Some(_) => errors.extend(port::number(child(&path, "containerPort"), &entry["containerPort"])),
        }
        if entry["hostPort"].as_i64().unwrap_or_default() != 0 {
            errors.extend(port::number(child(&path, "hostPort"), &entry["hostPort"]));
        }
        errors.extend(port::protocol(child(&path, "protocol"), &entry["protocol"]));
    }
    errors
}

/// Why two containers would have one port of the host.
fn host_ports(path: &str, list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut taken = BTreeSet::new();
    for (c, container) in items(list).enumerate() {
        for (p, port) in items(&container["ports"]).enumerate() {
            let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) else { continue };
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if !taken.insert(key.clone()) {
                errors.push(FieldError::duplicate(format!("{path}[{c}].ports[{p}].hostPort"), &json!(key)));
            }
        }
    }
    errors
}

fn resize_policy(path: &str, container: &Value, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, policy) in items(&container["resizePolicy"]).enumerate() {
        let (resource, restart) = (&policy["resourceName"], &policy["restartPolicy"]);
        if !seen.insert(text(policy, "resourceName")) {
            errors.push(FieldError::duplicate(item(path, i), resource));
        }
        errors.extend(one_of(path.to_owned(), resource, &["cpu", "memory"]));
        errors.extend(one_of(path.to_owned(), restart, &["NotRequired", "RestartContainer"]));
        if spec["restartPolicy"] == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, restart, why));
        }
    }
    errors
}

fn restart_policy(path: &str, container: &Value) -> Vec<FieldError> {
    let (policy, rules) = (&container["restartPolicy"], &container["restartPolicyRules"]);
    let mut errors = Vec::new();
    if policy.is_null() && !is_empty(rules) {
        let why = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(child(path, "restartPolicy"), why));
    }
    let known = ["Always", "Never", "OnFailure"];
    errors.extend(FieldError::unsupported(child(path, "restartPolicy"), policy, &known));
    let path = child(path, "restartPolicyRules");
    if items(rules).len() > MAX_RESTART_RULES {
        errors.push(FieldError::too_long(&path, MAX_RESTART_RULES));
    }
    for (i, rule) in items(rules).enumerate() {
        let path = item(&path, i);
        if rule["action"] != "Restart" {
            errors.push(FieldError::not_supported(child(&path, "action"), &rule["action"], &["Restart"]));
        }
        let codes = &rule["exitCodes"];
        let path = child(&path, "exitCodes");
        if codes.is_null() {
            errors.push(FieldError::required(path, "must be specified"));
            continue;
        }
        let operators = ["In", "NotIn"];
        if !operators.contains(&text(codes, "operator")) {
            errors.push(FieldError::not_supported(child(&path, "operator"), &codes["operator"], &operators));
        }
        if items(&codes["values"]).len() > MAX_EXIT_CODES {
            errors.push(FieldError::too_long(child(&path, "values"), MAX_EXIT_CODES));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::pod::defaults;

    /// What is said against a spec with its defaults.
    fn words(mut spec: Value) -> Vec<String> {
        defaults::pod_spec(&mut spec);
        let data = json!({"name": "data", "emptyDir": {}});
        let pod = Pod { spec: &spec, volumes: Volumes::from([("data", &data)]) };
        validate("spec", &pod).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    fn with(field: &str, value: Value) -> Vec<String> {
        let mut container = json!({"name": "a", "image": "x"});
        container[field] = value;
        words(json!({"containers": [container]}))
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        assert_eq!(words(json!({})), ["spec.containers: Required value"]);
        assert_eq!(
            words(json!({"containers": [{}]})),
            ["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"]
        );
        assert_eq!(
            with("ports", json!([{"containerPort": 70000}])),
            ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"]
        );
        assert_eq!(
            with("volumeMounts", json!([{"name": "other", "mountPath": "/x"}])),
            ["spec.containers[0].volumeMounts[0].name: Not found: \"other\""]
        );
        assert!(with("volumeMounts", json!([{"name": "data", "mountPath": "/x"}])).is_empty());
        assert_eq!(
            with("resources", json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}})),
            [
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1500m"
            ]
        );
        assert_eq!(
            with("imagePullPolicy", json!("Sometimes")),
            [
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
            ]
        );
        assert_eq!(
            with("resizePolicy", json!([{"resourceName": "disk", "restartPolicy": "NotRequired"}])),
            ["spec.containers[0].resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\""]
        );
    }

    #[test]
    fn names_and_ports_of_the_host_are_there_once() {
        let port = json!({"containerPort": 80, "hostPort": 80});
        let twice = json!({"containers": [{"name": "a", "image": "x", "ports": [port]}, {"name": "a", "image": "x", "ports": [port]}]});
        assert_eq!(
            words(twice),
            [
                "spec.containers[1].name: Duplicate value: \"a\"",
                "spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""
            ]
        );
    }

    #[test]
    fn what_runs_once_is_not_probed() {
        let init = |policy: Value| {
            json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [{"name": "i", "image": "x",
                "restartPolicy": policy, "livenessProbe": {"exec": {"command": ["x"]}}}]})
        };
        assert_eq!(words(init(json!("Always"))), Vec::<String>::new());
        assert_eq!(
            words(init(Value::Null)),
            [
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"
            ]
        );
    }

    #[test]
    fn containers_that_look_at_a_pod_are_restricted() {
        let ephemeral = |fields: Value| {
            let mut container = json!({"name": "debug", "image": "x", "targetContainerName": "a"});
            for (field, value) in fields.as_object().unwrap() {
                container[field] = value.clone();
            }
            words(json!({"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [container]}))
        };
        assert_eq!(ephemeral(json!({})), Vec::<String>::new());
        let path = "spec.ephemeralContainers[0]";
        assert_eq!(
            ephemeral(json!({"ports": [{"containerPort": 80}], "targetContainerName": "b"})),
            [
                format!("{path}.targetContainerName: Not found: \"b\""),
                format!("{path}.ports: Forbidden: cannot be set for an Ephemeral Container"),
            ]
        );
        let rules = json!({"restartPolicyRules": [{}], "lifecycle": {}, "ports": [{"containerPort": 80}]});
        let forbidden = ephemeral(rules).into_iter().filter(|words| words.contains("Forbidden"));
        let fields: Vec<String> = forbidden.filter_map(|words| Some(words.split(": ").next()?.to_owned())).collect();
        assert_eq!(fields, ["ports", "restartPolicyRules", "lifecycle"].map(|field| format!("{path}.{field}")));
    }

    #[test]
    fn rules_of_restarting_need_a_policy_and_exit_codes() {
        let rules = json!([{"action": "Stop"}]);
        assert_eq!(
            with("restartPolicyRules", rules),
            [
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\"",
                "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified"
            ]
        );
        let of_init = words(json!({"containers": [{"name": "a", "image": "x"}],
            "initContainers": [{"name": "i", "image": "x", "restartPolicyRules": [{"action": "Stop"}]}]}));
        let policy = "restartPolicy: Required value: must specify restartPolicy when restart rules are used";
        assert_eq!(of_init, [format!("spec.initContainers[0].{policy}")]);
    }
}
