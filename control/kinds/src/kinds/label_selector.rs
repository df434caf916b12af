//! `LabelSelector`: whether it matches labels, its text form, and validation.

use serde_json::Value;

use super::{FieldError, names};

/// A `LabelSelector` in the words of `kubectl -l`: `app=web,tier in (a,b),!legacy`.
pub fn text(selector: &Value) -> String {
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

/// Whether it has no terms at all.
pub fn is_empty(selector: &Value) -> bool {
    let labels = selector["matchLabels"].as_object().is_none_or(|labels| labels.is_empty());
    labels && selector["matchExpressions"].as_array().is_none_or(Vec::is_empty)
}

/// Reasons why a `LabelSelector` means nothing.
pub fn validate(path: &str, selector: &Value) -> Vec<FieldError> {
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
        for (i, value) in expression["values"].as_array().into_iter().flatten().enumerate() {
            errors.extend(FieldError::each(format!("{path}.values[{i}]"), value, names::label_value));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_reads_as_on_the_command_line() {
        let selector = json!({"matchLabels": {"tier": "x", "app": "web"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["z", "y"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(text(&selector), "app=web,b in (y,z),!c,tier=x");
        assert_eq!(text(&json!({})), "<none>");
        assert!(selects(&selector, &json!({"app": "web", "tier": "x", "b": "y"})));
        assert!(!selects(&selector, &json!({"app": "web", "tier": "x", "b": "y", "c": ""})));
        assert!(!selects(&selector, &json!({"app": "web", "tier": "x"})));
    }
}
