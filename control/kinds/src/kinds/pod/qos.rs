//! The quality of service class of a pod, told from the requests and limits of its containers, or of the pod as a whole
//! where it has any. Source: `pkg/apis/core/helper/qos` of Kubernetes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kinds::{quantity::Quantity, reading::text};

/// What the class depends on.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// `BestEffort` where nothing is requested or limited, `Guaranteed` where cpu and memory are limited everywhere and as
/// much is requested, else `Burstable`.
pub fn class(spec: &Value) -> &'static str {
    let lists = [&spec["containers"], &spec["initContainers"]];
    let parts: Vec<&Value> = match &spec["resources"] {
        Value::Null => lists.iter().filter_map(|l| l.as_array()).flatten().map(|c| &c["resources"]).collect(),
        of_pod => vec![of_pod],
    };
    let requests = sums(&parts, "requests");
    let limits = sums(&parts, "limits");
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let is_limited = |part: &&Value| RESOURCES.iter().all(|resource| positive(part, "limits", resource).is_some());
    match parts.iter().all(is_limited) && requests == limits {
        true => "Guaranteed",
        false => "Burstable",
    }
}

/// Whether a pod is of the class `BestEffort`: as its status says, once it says anything.
pub fn is_best_effort(pod: &Value) -> bool {
    let said = text(&pod["status"], "qosClass");
    (if said.is_empty() { class(&pod["spec"]) } else { said }) == "BestEffort"
}

fn sums(parts: &[&Value], list: &str) -> BTreeMap<&'static str, Quantity> {
    let mut sums = BTreeMap::new();
    for (part, resource) in parts.iter().flat_map(|part| RESOURCES.map(|resource| (part, resource))) {
        if let Some(amount) = positive(part, list, resource) {
            let sum = sums.entry(resource).or_insert(Quantity::ZERO);
            *sum = sum.saturating_add(amount);
        }
    }
    sums
}

fn positive(part: &Value, list: &str, resource: &str) -> Option<Quantity> {
    Quantity::of(&part[list][resource]).filter(|amount| amount.is_positive())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let of = |resources: Value| class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(of(json!({})), "BestEffort");
        // A stored pod requests what it limits: its defaults have said so.
        assert_eq!(of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Burstable");
        assert_eq!(of(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})), "Burstable");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(of(json!({"requests": {"cpu": "0.0"}, "limits": {"cpu": 0}})), "BestEffort");
        let same = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        assert_eq!(of(same), "Guaranteed");
    }

    #[test]
    fn what_the_status_says_goes_before_what_is_requested() {
        let pod = |requests: Value| json!({"spec": {"containers": [{"resources": {"requests": requests}}]}});
        assert!(is_best_effort(&pod(json!({}))) && !is_best_effort(&pod(json!({"cpu": "1"}))));
        let said = |class: &str| json!({"spec": {"containers": []}, "status": {"qosClass": class}});
        assert!(is_best_effort(&said("BestEffort")) && !is_best_effort(&said("Burstable")));
    }

    #[test]
    fn resources_of_the_pod_count_instead_of_those_of_its_containers() {
        let of = |resources: Value| {
            let container = json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}});
            class(&json!({"resources": resources, "containers": [container]}))
        };
        let amounts = json!({"cpu": "2", "memory": "2Gi"});
        assert_eq!(of(json!({"limits": amounts, "requests": amounts})), "Guaranteed");
        assert_eq!(of(json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}})), "Burstable");
        assert_eq!(of(json!({"requests": amounts})), "Burstable");
        assert_eq!(of(json!({})), "BestEffort");
    }
}
