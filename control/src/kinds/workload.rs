//! What Deployments and ReplicaSets share: a label selector, a pod template, and how tables show them.

use serde_json::Value;

/// Names and images of the containers, each joined by commas.
pub fn containers(pod_spec: &Value) -> (String, String) {
    let joined = |field: &str| {
        let containers = pod_spec["containers"].as_array().into_iter().flatten();
        containers.map(|c| c[field].as_str().unwrap_or_default()).collect::<Vec<_>>().join(",")
    };
    (joined("name"), joined("image"))
}

/// A `LabelSelector` in the words of `kubectl -l`: `app=web,tier in (a,b),!legacy`.
pub fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key.to_owned(),
            Some("DoesNotExist") => format!("!{key}"),
            _ => "<invalid>".to_owned(),
        };
        terms.push((key.to_owned(), text));
    }
    terms.sort();
    let text = terms.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",");
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// Whether labels satisfy a `LabelSelector`. An empty selector is satisfied by anything.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let by_label = selector["matchLabels"].as_object().into_iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    by_label
        && selector["matchExpressions"].as_array().into_iter().flatten().all(|e| {
            let label = e["key"].as_str().and_then(|key| labels.get(key));
            let listed = label.is_some_and(|l| e["values"].as_array().is_some_and(|values| values.contains(l)));
            match e["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => label.is_some(),
                Some("DoesNotExist") => label.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_reads_as_on_the_command_line() {
        let selector = json!({"matchLabels": {"tier": "x", "app": "web"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["z", "y"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(selector_text(&selector), "app=web,b in (y,z),!c,tier=x");
        assert_eq!(selector_text(&json!({})), "<none>");
        assert!(selects(&selector, &json!({"app": "web", "tier": "x", "b": "y"})));
        assert!(!selects(&selector, &json!({"app": "web", "tier": "x", "b": "y", "c": ""})));
        assert!(!selects(&selector, &json!({"app": "web", "tier": "x"})));
    }
}
