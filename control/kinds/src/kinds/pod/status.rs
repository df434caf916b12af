//! What a node or the scheduler may report of a pod.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
};

use serde_json::{Value, json};

use super::security::id;
use crate::kinds::{
    FieldError, ip, names,
    reading::{as_text, first_by_name, items, number, text},
};

/// Keeps, in the status of `new`, what a reporter that does not know of it leaves out.
pub fn prepare(new: &mut Value, old: &Value) {
    let (now, was) = (&mut new["status"], &old["status"]);
    if was["resources"].is_null()
        && was["allocatedResources"].is_null()
        && let Some(status) = now.as_object_mut()
    {
        // Of a feature that is off: resources of a whole pod change only with it.
        status.shift_remove("resources");
        status.shift_remove("allocatedResources");
    }
    if text(now, "qosClass").is_empty() && !was["qosClass"].is_null() {
        now["qosClass"] = was["qosClass"].clone();
    }
    if number(now, "observedGeneration") == 0 && !was["observedGeneration"].is_null() {
        now["observedGeneration"] = was["observedGeneration"].clone();
    }
    let mut before: HashMap<&Value, VecDeque<&Value>> = HashMap::new();
    for condition in items(&was["conditions"]) {
        before.entry(&condition["type"]).or_default().push_back(condition);
    }
    for condition in now.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        // A type that is there twice takes the generations in their order.
        let known = before.get_mut(&condition["type"]).and_then(VecDeque::pop_front);
        let known = known.map(|known| known["observedGeneration"].clone()).unwrap_or_default();
        if number(condition, "observedGeneration") == 0 && !known.is_null() {
            condition["observedGeneration"] = known;
        }
    }
}

/// Why the status of `old` may not become that of `new`.
pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let (now, was) = (&new["status"], &old["status"]);
    let mut errors = conditions(&now["conditions"]);
    errors.extend(nominated_node(new, old));
    if number(now, "observedGeneration") < 0 {
        let why = "must be a non-negative integer";
        errors.push(FieldError::invalid("status.observedGeneration", &now["observedGeneration"], why));
    }
    if !was["qosClass"].is_null() && now["qosClass"] != was["qosClass"] {
        errors.push(FieldError::immutable("status.qosClass", &now["qosClass"]));
    }
    for (statuses, containers) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ] {
        errors.extend(restarts(statuses, containers, new, old));
    }
    errors.extend(claim_statuses(now, &new["spec"]));
    errors.extend(addresses("podIPs", now));
    let (host, first) = (&now["hostIP"], &now["hostIPs"][0]["ip"]);
    if !first.is_null() && first != host {
        errors.push(FieldError::invalid("status.hostIPs[0].ip", first, "must be equal to `hostIP`"));
    }
    errors.extend(addresses("hostIPs", now));
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for (i, status) in items(&now[list]).enumerate() {
            errors.extend(user(&format!("status.{list}[{i}].user.linux"), &status["user"]["linux"]));
        }
    }
    errors
}

fn conditions(list: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, condition) in items(list).enumerate() {
        let path = format!("status.conditions[{i}]");
        if number(condition, "observedGeneration") < 0 {
            let why = "must be a non-negative integer";
            let value = &condition["observedGeneration"];
            errors.push(FieldError::invalid(format!("{path}.observedGeneration"), value, why));
        }
        if !matches!(text(condition, "type"), "PodScheduled" | "Ready" | "Initialized") {
            let kind = json!(text(condition, "type"));
            errors.extend(FieldError::each(format!("{path}.Type"), &kind, names::qualified_name));
        }
    }
    errors
}

fn nominated_node(new: &Value, old: &Value) -> Vec<FieldError> {
    const PATH: &str = "status.nominatedNodeName";
    let node = &new["status"]["nominatedNodeName"];
    if as_text(node).is_empty() || *node == old["status"]["nominatedNodeName"] {
        return Vec::new();
    }
    let mut errors = FieldError::each(PATH, node, names::subdomain);
    if !text(&old["spec"], "nodeName").is_empty() {
        let why = "may not be set on pods that are already bound to a node";
        errors.push(FieldError::forbidden(PATH, why));
    }
    errors
}

/// Reasons against containers that ended for good and run again.
fn restarts(statuses: &str, containers: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let by_name = |list| first_by_name(items(list));
    let (now, of_spec) = (by_name(&new["status"][statuses]), by_name(&old["spec"][containers]));
    for (i, before) in items(&old["status"][statuses]).enumerate() {
        let ended = &before["state"]["terminated"];
        if ended.is_null() {
            continue;
        }
        let runs = now.get(text(before, "name"));
        let runs = runs.is_some_and(|status| status["state"]["terminated"].is_null());
        let container = of_spec.get(text(before, "name"));
        let may = container.is_some_and(|container| restarts_after(container, &old["spec"], number(ended, "exitCode")));
        if runs && !may {
            let why = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(format!("status.{statuses}[{i}].state"), why));
        }
    }
    errors
}

/// Whether a container is started again after it ended with this code: its own rules say so, or its policy, or the
/// pod's.
fn restarts_after(container: &Value, spec: &Value, code: i64) -> bool {
    let matches = |rule: &&Value| {
        let listed = items(&rule["exitCodes"]["values"]).any(|value| value.as_i64() == Some(code));
        match text(&rule["exitCodes"], "operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    if items(&container["restartPolicyRules"]).any(|rule| rule["action"] == "Restart" && matches(&rule)) {
        return true;
    }
    match container["restartPolicy"].as_str().unwrap_or_else(|| text(spec, "restartPolicy")) {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

fn claim_statuses(status: &Value, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    let known: BTreeSet<&str> = items(&spec["resourceClaims"]).map(|claim| text(claim, "name")).collect();
    for (i, claim) in items(&status["resourceClaimStatuses"]).enumerate() {
        let (path, name) = (format!("status.resourceClaimStatuses[{i}].name"), json!(text(claim, "name")));
        if !known.contains(text(claim, "name")) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&path, &name, why));
        }
        if !seen.insert(text(claim, "name")) {
            errors.push(FieldError::duplicate(&path, &name));
        }
        if !claim["resourceClaimName"].is_null() {
            errors.extend(FieldError::each(path, &claim["resourceClaimName"], names::subdomain));
        }
    }
    errors
}

/// One address of each family at most.
fn addresses(field: &str, status: &Value) -> Vec<FieldError> {
    let list = &status[field];
    let mut errors = Vec::new();
    for (i, address) in items(list).enumerate() {
        errors.extend(ip::validate(format!("status.{field}[{i}]"), &json!(text(address, "ip"))));
    }
    let families: Vec<bool> =
        items(list).filter_map(|address| ip::parse(text(address, "ip"))).map(|ip: IpAddr| ip.is_ipv4()).collect();
    if errors.is_empty() && families.len() > 1 && (families.len() > 2 || families[0] == families[1]) {
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(format!("status.{field}"), list, why));
    }
    errors
}

fn user(path: &str, user: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        ["uid", "gid"].into_iter().filter_map(|field| id(format!("{path}.{field}"), &user[field])).collect();
    for (i, group) in items(&user["supplementalGroups"]).enumerate() {
        errors.extend(id(format!("{path}.supplementalGroups[{i}]"), group));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(spec: Value, new: Value, old: Value) -> Vec<String> {
        let pod = |status: Value| json!({"spec": spec, "status": status});
        validate(&pod(new), &pod(old)).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn what_ended_for_good_does_not_run_again() {
        let ended =
            |code: i64| json!({"containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": code}}}]});
        let runs = json!({"containerStatuses": [{"name": "a", "state": {"running": {}}}]});
        let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
        let refused = ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"];
        assert_eq!(words(spec("Never"), runs.clone(), ended(1)), refused);
        assert_eq!(words(spec("OnFailure"), runs.clone(), ended(0)), refused);
        assert!(words(spec("OnFailure"), runs.clone(), ended(1)).is_empty());
        assert!(words(spec("Always"), runs.clone(), ended(0)).is_empty());
        let rules = json!({"restartPolicy": "Never", "containers": [{"name": "a", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [7]}}]}]});
        assert!(words(rules, runs, ended(7)).is_empty());
    }

    #[test]
    fn addresses_nodes_and_conditions_are_checked() {
        let new = json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "hostIP": "10.0.0.9",
            "hostIPs": [{"ip": "10.0.0.8"}], "nominatedNodeName": "n", "qosClass": "Guaranteed",
            "conditions": [{"type": "a b"}, {"type": "Ready"}]});
        let words = words(json!({"nodeName": "m"}), new, json!({"qosClass": "Burstable"}));
        assert_eq!(words.len(), 5, "{words:?}");
        assert!(words[1].starts_with("status.nominatedNodeName: Forbidden: may not be set on pods"));
    }

    #[test]
    fn resources_of_the_whole_pod_are_not_reported() {
        let mut new = json!({"status": {"resources": {}, "allocatedResources": {"cpu": "1"}, "phase": "Running"}});
        prepare(&mut new, &json!({"status": {}}));
        assert_eq!(new["status"], json!({"phase": "Running"}));
    }

    #[test]
    fn generations_that_a_reporter_does_not_know_stay() {
        let old = json!({"status": {"qosClass": "Burstable", "observedGeneration": 3,
            "conditions": [{"type": "Ready", "observedGeneration": 2}]}});
        let mut new = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other"}]}});
        prepare(&mut new, &old);
        assert_eq!(
            new["status"],
            json!({"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 2}, {"type": "Other"}],
                "qosClass": "Burstable", "observedGeneration": 3})
        );
    }
}
