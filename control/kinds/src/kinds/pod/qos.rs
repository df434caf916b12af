//! The quality of service class of a pod, told from the requests and limits of its containers.

use serde_json::Value;

/// `Guaranteed` if every container limits cpu and memory and requests as much, `BestEffort` if none says anything, else
/// `Burstable`.
pub fn class(spec: &Value) -> &'static str {
    let lists = [&spec["containers"], &spec["initContainers"]];
    let containers: Vec<&Value> = lists.iter().filter_map(|l| l.as_array()).flatten().collect();
    let amount = |container: &Value, what: &str, resource: &str| -> Option<Value> {
        let amount = &container["resources"][what][resource];
        let zero = matches!(amount.as_str(), Some("0")) || amount.as_i64() == Some(0);
        (!amount.is_null() && !zero).then(|| amount.clone())
    };
    const RESOURCES: [&str; 2] = ["cpu", "memory"];
    let silent =
        |c: &&Value| RESOURCES.iter().all(|r| amount(c, "requests", r).is_none() && amount(c, "limits", r).is_none());
    let guaranteed = |c: &&Value| {
        RESOURCES.iter().all(|r| match (amount(c, "limits", r), amount(c, "requests", r)) {
            (Some(limit), Some(request)) => limit == request,
            (Some(_), None) => true,
            (None, _) => false,
        })
    };
    if containers.iter().all(silent) {
        "BestEffort"
    } else if containers.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let of = |resources: Value| class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
        assert_eq!(of(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})), "Burstable");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
    }
}
