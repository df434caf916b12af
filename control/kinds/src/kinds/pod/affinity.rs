//! Affinity: near which nodes and which pods a pod is to run, and over what it spreads.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use crate::kinds::{
    FieldError,
    field::{child, item},
    label_selector, names,
    reading::{as_text, entries, is_empty, items, number, text},
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Reasons against the affinity of a pod.
pub fn validate(path: &str, affinity: &Value) -> Vec<FieldError> {
    let mut errors = node_affinity(&child(path, "nodeAffinity"), &affinity["nodeAffinity"]);
    for kind in ["podAffinity", "podAntiAffinity"] {
        errors.extend(pod_affinity(&child(path, kind), &affinity[kind]));
    }
    errors
}

fn node_affinity(path: &str, affinity: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !affinity[REQUIRED].is_null() {
        errors.extend(node_selector(&child(path, REQUIRED), &affinity[REQUIRED]));
    }
    for (i, term) in items(&affinity[PREFERRED]).enumerate() {
        let path = format!("{path}.{PREFERRED}[{i}]");
        errors.extend(weight(&path, term));
        errors.extend(node_selector_term(&child(&path, "preference"), &term["preference"], false));
    }
    errors
}

fn weight(path: &str, term: &Value) -> Option<FieldError> {
    let wrong = !(1..=100).contains(&number(term, "weight"));
    let value = json!(number(term, "weight"));
    wrong.then(|| FieldError::invalid(child(path, "weight"), &value, "must be in the range 1-100"))
}

/// Reasons against a selector of nodes, of a pod or a PersistentVolume.
pub fn node_selector(path: &str, selector: &Value) -> Vec<FieldError> {
    let path = child(path, "nodeSelectorTerms");
    let terms = &selector["nodeSelectorTerms"];
    if is_empty(terms) {
        return vec![FieldError::required(path, "must have at least one node selector term")];
    }
    let terms = items(terms).enumerate();
    terms.flat_map(|(i, term)| node_selector_term(&item(&path, i), term, true)).collect()
}

fn node_selector_term(path: &str, term: &Value, strict_values: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, expression) in items(&term["matchExpressions"]).enumerate() {
        errors.extend(by_label(&format!("{path}.matchExpressions[{i}]"), expression, strict_values));
    }
    for (i, expression) in items(&term["matchFields"]).enumerate() {
        errors.extend(by_field(&format!("{path}.matchFields[{i}]"), expression));
    }
    errors
}

fn by_label(path: &str, expression: &Value, strict_values: bool) -> Vec<FieldError> {
    let values = items(&expression["values"]).len();
    let path_of_values = child(path, "values");
    let mut errors = Vec::new();
    match text(expression, "operator") {
        "In" | "NotIn" if values == 0 => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&path_of_values, why));
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&path_of_values, why));
        }
        "Gt" | "Lt" if values != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(&path_of_values, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        operator => errors.push(unknown_operator(path, operator)),
    }
    errors.extend(FieldError::each(child(path, "key"), &json!(text(expression, "key")), names::qualified_name));
    for (i, value) in items(&expression["values"]).enumerate().filter(|_| strict_values) {
        errors.extend(FieldError::each(item(&path_of_values, i), value, names::label_value));
    }
    errors
}

fn by_field(path: &str, expression: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(expression, "operator") {
        "In" | "NotIn" if items(&expression["values"]).len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(child(path, "values"), why));
        }
        "In" | "NotIn" => {}
        operator => errors.push(unknown_operator(path, operator)),
    }
    if text(expression, "key") == "metadata.name" {
        for (i, value) in items(&expression["values"]).enumerate() {
            errors.extend(FieldError::each(format!("{path}.values[{i}]"), value, names::subdomain));
        }
    } else {
        let key = json!(text(expression, "key"));
        errors.push(FieldError::invalid(child(path, "key"), &key, "not a valid field selector key"));
    }
    errors
}

fn unknown_operator(path: &str, operator: &str) -> FieldError {
    FieldError::invalid(child(path, "operator"), &json!(operator), "not a valid selector operator")
}

fn pod_affinity(path: &str, affinity: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, term) in items(&affinity[REQUIRED]).enumerate() {
        errors.extend(pod_affinity_term(&format!("{path}.{REQUIRED}[{i}]"), term));
    }
    for (i, term) in items(&affinity[PREFERRED]).enumerate() {
        let path = format!("{path}.{PREFERRED}[{i}]");
        errors.extend(weight(&path, term));
        errors.extend(pod_affinity_term(&child(&path, "podAffinityTerm"), &term["podAffinityTerm"]));
    }
    errors
}

fn pod_affinity_term(path: &str, term: &Value) -> Vec<FieldError> {
    let mut errors = label_selector::validate(&child(path, "labelSelector"), &term["labelSelector"]);
    errors.extend(label_selector::validate(&child(path, "namespaceSelector"), &term["namespaceSelector"]));
    for namespace in items(&term["namespaces"]) {
        errors.extend(FieldError::each(child(path, "namespace"), namespace, names::label));
    }
    errors.extend(label_keys(path, term));
    let topology = child(path, "topologyKey");
    if text(term, "topologyKey").is_empty() {
        errors.push(FieldError::required(&topology, "can not be empty"));
    }
    errors.extend(FieldError::each(topology, &json!(text(term, "topologyKey")), names::qualified_name));
    errors
}

/// Reasons against the keys whose values are taken from the pod's own labels.
fn label_keys(path: &str, term: &Value) -> Vec<FieldError> {
    let selector = &term["labelSelector"];
    let (taken, excluded) = (&term["matchLabelKeys"], &term["mismatchLabelKeys"]);
    let mut errors = Vec::new();
    for (field, keys) in [("matchLabelKeys", taken), ("mismatchLabelKeys", excluded)] {
        let path = child(path, field);
        if !is_empty(keys) && selector.is_null() {
            errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in items(keys).enumerate() {
            errors.extend(FieldError::each(item(&path, i), key, names::qualified_name));
        }
    }
    // The server itself adds one expression for each key: only a key that is there once more was said by the client.
    let mut seen: BTreeSet<&str> = entries(&selector["matchLabels"]).map(|(key, _)| key.as_str()).collect();
    let mut first_at: HashMap<&str, usize> = HashMap::new();
    for (at, key) in items(taken).enumerate() {
        first_at.entry(as_text(key)).or_insert(at);
    }
    for expression in items(&selector["matchExpressions"]) {
        let key = text(expression, "key");
        if let Some(&at) = first_at.get(key).filter(|_| seen.contains(key)) {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(item(path, at), &json!(key), why));
        }
        seen.insert(key);
    }
    let excluded: HashSet<&str> = items(excluded).map(as_text).collect();
    for (i, key) in items(taken).enumerate().filter(|(_, key)| excluded.contains(as_text(key))) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(format!("{path}.matchLabelKeys[{i}]"), key, why));
    }
    errors
}

/// Reasons against the constraints by which pods spread over nodes.
pub fn topology_spread(path: &str, constraints: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let of = |constraint: &Value| ["topologyKey", "whenUnsatisfiable"].map(|field| text(constraint, field).to_owned());
    let last_at: HashMap<[String; 2], usize> = items(constraints).map(of).zip(0..).collect();
    for (i, constraint) in items(constraints).enumerate() {
        let path = item(path, i);
        let read = |field: &str| text(constraint, field);
        if number(constraint, "maxSkew") <= 0 {
            let value = json!(number(constraint, "maxSkew"));
            errors.push(FieldError::invalid(child(&path, "maxSkew"), &value, "must be greater than zero"));
        }
        if read("topologyKey").is_empty() {
            errors.push(FieldError::required(child(&path, "topologyKey"), "can not be empty"));
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&read("whenUnsatisfiable")) {
            let value = &constraint["whenUnsatisfiable"];
            errors.push(FieldError::not_supported(child(&path, "whenUnsatisfiable"), value, &actions));
        }
        if last_at.get(&of(constraint)).is_some_and(|at| *at > i) {
            let value = json!(format!("{{{}, {}}}", read("topologyKey"), read("whenUnsatisfiable")));
            errors.push(FieldError::duplicate(format!("{path}.{{topologyKey, whenUnsatisfiable}}"), &value));
        }
        let domains = &constraint["minDomains"];
        errors.extend(FieldError::not_positive(child(&path, "minDomains"), domains));
        if !domains.is_null() && read("whenUnsatisfiable") != "DoNotSchedule" {
            let why = format!(
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                read("whenUnsatisfiable")
            );
            errors.push(FieldError::invalid(child(&path, "minDomains"), domains, why));
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let path = child(&path, policy);
            errors.extend(FieldError::unsupported(path, &constraint[policy], &["Honor", "Ignore"]));
        }
        errors.extend(label_keys(&path, constraint));
        errors.extend(label_selector::validate(&child(&path, "labelSelector"), &constraint["labelSelector"]));
    }
    errors
}

/// Puts the labels of a new pod that its terms take by key into their selectors.
pub fn take_labels(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.pointer_mut(&format!("/affinity/{kind}")) else { continue };
        for term in affinity.get_mut(REQUIRED).and_then(Value::as_array_mut).into_iter().flatten() {
            take(term, &labels);
        }
        for term in affinity.get_mut(PREFERRED).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(term) = term.get_mut("podAffinityTerm") {
                take(term, &labels);
            }
        }
    }
    for constraint in spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut).into_iter().flatten() {
        take(constraint, &labels);
    }
}

fn take(term: &mut Value, labels: &Value) {
    if !term["labelSelector"].is_object() {
        return;
    }
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys: Vec<String> = items(&term[field]).map(|key| as_text(key).to_owned()).collect();
        for (key, value) in keys.iter().filter_map(|key| Some((key, labels.get(key)?))) {
            let expression = json!({"key": key, "operator": operator, "values": [value]});
            match term["labelSelector"].get_mut("matchExpressions").and_then(Value::as_array_mut) {
                Some(expressions) => expressions.push(expression),
                None => term["labelSelector"]["matchExpressions"] = json!([expression]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn nodes_are_selected_by_labels_and_by_name() {
        let required = |term: Value| json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}});
        let good = required(json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}],
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}));
        assert_eq!(validate("a", &good), []);
        let path = format!("a.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
        let bad = required(json!({"matchExpressions": [{"key": "a", "operator": "In"}],
            "matchFields": [{"key": "spec.x", "operator": "Exists"}]}));
        assert_eq!(
            words(validate("a", &bad)),
            [
                format!(
                    "{path}[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
                ),
                format!("{path}[0].matchFields[0].operator: Invalid value: \"Exists\": not a valid selector operator"),
                format!("{path}[0].matchFields[0].key: Invalid value: \"spec.x\": not a valid field selector key"),
            ]
        );
        let empty = json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}});
        assert_eq!(
            words(validate("a", &empty)),
            [format!("{path}: Required value: must have at least one node selector term")]
        );
    }

    #[test]
    fn terms_of_pods_have_a_topology_and_a_weight() {
        let affinity = json!({"podAffinity": {PREFERRED: [{"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]},
            "podAntiAffinity": {REQUIRED: [{}]}});
        let words = words(validate("a", &affinity));
        assert_eq!(
            words[..2],
            [
                format!("a.podAffinity.{PREFERRED}[0].weight: Invalid value: 0: must be in the range 1-100"),
                format!("a.podAntiAffinity.{REQUIRED}[0].topologyKey: Required value: can not be empty"),
            ]
        );
    }

    #[test]
    fn constraints_are_told_apart_by_topology_and_action() {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        assert_eq!(topology_spread("t", &json!([constraint])), []);
        assert_eq!(
            words(topology_spread("t", &json!([constraint, constraint]))),
            ["t[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, DoNotSchedule}\""]
        );
        let bad = json!({"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 0});
        assert_eq!(
            words(topology_spread("t", &json!([bad]))),
            [
                "t[0].maxSkew: Invalid value: 0: must be greater than zero",
                "t[0].minDomains: Invalid value: 0: must be greater than zero",
                "t[0].minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"
            ]
        );
    }

    #[test]
    fn labels_that_are_taken_by_key_become_expressions() {
        let mut pod = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"topologySpreadConstraints": [
            {"labelSelector": {}, "matchLabelKeys": ["app", "other"], "maxSkew": 1, "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule"}]}});
        take_labels(&mut pod);
        let constraints = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(
            constraints[0]["labelSelector"],
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]})
        );
        assert_eq!(topology_spread("t", constraints), []);
        let mut said = constraints.clone();
        said[0]["labelSelector"]["matchLabels"] = json!({"app": "web"});
        assert_eq!(topology_spread("t", &said).len(), 1);
    }
}
