//! What Deployments and ReplicaSets share: a label selector, a pod template, and how tables show them.

use serde_json::Value;

use super::{FieldError, names, pod};

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

/// Reasons against what Deployments and ReplicaSets share.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = Vec::new();
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.extend(FieldError::negative(format!("spec.{field}"), &spec[field]));
    }
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        let invalid = label_selector("spec.selector", selector);
        let terms = |field: &str| match &selector[field] {
            Value::Object(map) => map.len(),
            Value::Array(list) => list.len(),
            _ => 0,
        };
        if terms("matchLabels") + terms("matchExpressions") == 0 {
            errors.push(FieldError::invalid("spec.selector", selector, "empty selector is invalid for deployment"));
        } else if invalid.is_empty() {
            let labels = &spec["template"]["metadata"]["labels"];
            if !selects(selector, labels) {
                let why = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid("spec.template.metadata.labels", labels, why));
            }
        }
        errors.extend(invalid);
    }
    errors.extend(pod::validation::template("spec.template", &spec["template"]));
    if let Some(old) = old.map(|old| &old["spec"]["selector"])
        && old != selector
    {
        errors.push(FieldError::immutable("spec.selector", selector));
    }
    errors
}

/// Reasons why a `LabelSelector` means nothing.
pub fn label_selector(path: &str, selector: &Value) -> Vec<FieldError> {
    let mut errors = names::labels(&format!("{path}.matchLabels"), &selector["matchLabels"]);
    for (i, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        let values = expression["values"].as_array().map_or(0, Vec::len);
        match expression["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if values == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{path}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let why = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{path}.operator"), &expression["operator"], why));
            }
        }
        let key = expression["key"].as_str().unwrap_or_default();
        let wrong = names::qualified_name(key).into_iter();
        errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.key"), &expression["key"], why)));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_must_match_its_template_and_stay() {
        let pod = json!({"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Always"});
        let workload = |selected: &str| {
            json!({"spec": {"selector": {"matchLabels": {"app": selected}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod}}})
        };
        assert_eq!(validate(&workload("web"), None), []);
        let errors = validate(&workload("other"), Some(&workload("web")));
        let words: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(
            words,
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable",
            ]
        );
    }

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
