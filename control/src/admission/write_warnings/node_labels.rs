//! Labels of nodes that have other names now.

use serde_json::Value;

use crate::kinds::{
    names,
    reading::{as_text, entries, items, text},
};

const DEPRECATED: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What is to be said of a label.
pub fn message(key: &str) -> Option<&'static str> {
    DEPRECATED.iter().find(|(known, _)| *known == key).map(|(_, message)| *message)
}

/// Of a term of a node affinity. Of a preferred one, values that no label has are warned of, too.
pub fn term(path: &str, term: &Value, preferred: bool) -> Vec<String> {
    let mut all = Vec::new();
    for (i, expression) in items(&term["matchExpressions"]).enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        all.extend(named(&format!("{path}.key"), text(expression, "key")));
        for (v, value) in items(&expression["values"]).map(as_text).enumerate().filter(|_| preferred) {
            let wrong = names::label_value(value).into_iter();
            all.extend(wrong.map(|why| format!("{path}.values[{v}]: {value} is invalid, {why}")));
        }
    }
    all
}

/// Of a label selector of nodes.
pub fn selector(path: &str, selector: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (i, expression) in items(&selector["matchExpressions"]).enumerate() {
        all.extend(named(&format!("{path}.matchExpressions[{i}].key"), text(expression, "key")));
    }
    let labels = entries(&selector["matchLabels"]);
    all.extend(labels.filter_map(|(key, _)| Some(format!("{path}.matchLabels.{key}: {}", message(key)?))));
    all
}

/// Of the node selector of a RuntimeClass.
pub fn runtime_class(selector: &Value) -> Vec<String> {
    let messages = entries(selector).filter_map(|(key, _)| message(key));
    messages.map(|message| format!("scheduling.nodeSelector: {message}")).collect()
}

/// `PATH: KEY is deprecated …`
pub fn named(path: &str, key: &str) -> Option<String> {
    Some(format!("{path}: {key} is {}", message(key)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn old_labels_are_named_with_the_new_ones() {
        let arch = "deprecated since v1.14; use \"kubernetes.io/arch\" instead";
        let expressions = json!({"matchExpressions": [{"key": "beta.kubernetes.io/arch", "values": ["a b"]}],
            "matchLabels": {"beta.kubernetes.io/arch": "x", "a": "b"}});
        let of_key = format!("p.matchExpressions[0].key: beta.kubernetes.io/arch is {arch}");
        assert_eq!(term("p", &expressions, false), std::slice::from_ref(&of_key));
        let preferred = term("p", &expressions, true);
        assert!(preferred[1].starts_with("p.matchExpressions[0].values[0]: a b is invalid, "), "{preferred:?}");
        assert_eq!(selector("p", &expressions), [of_key, format!("p.matchLabels.beta.kubernetes.io/arch: {arch}")]);
        let class = runtime_class(&json!({"beta.kubernetes.io/arch": "x"}));
        assert_eq!(class, [format!("scheduling.nodeSelector: {arch}")]);
    }
}
