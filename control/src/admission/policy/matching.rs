//! Which requests a policy or a binding is about: `MatchResources`.

use serde_json::Value;

use super::Request;
use crate::{admission::namespace, kinds::label_selector, request::Verb};

/// Whether the constraints take a request. `object` is the new one.
pub fn matches(constraints: &Value, request: &Request<'_>, object: &Value) -> bool {
    in_namespace(&constraints["namespaceSelector"], request, object)
        && has_labels(&constraints["objectSelector"], request, object)
        && !any_rule(&constraints["excludeResourceRules"], constraints, request)
        && (constraints["resourceRules"].as_array().is_none_or(Vec::is_empty) && !is_policy(constraints)
            || any_rule(&constraints["resourceRules"], constraints, request))
}

/// The constraints of a policy name what it is about; those of a binding may leave that to the policy.
fn is_policy(constraints: &Value) -> bool {
    constraints["matchPolicy"].is_string() && constraints["resourceRules"].is_array()
}

fn in_namespace(selector: &Value, request: &Request<'_>, object: &Value) -> bool {
    if label_selector::is_empty(selector) {
        return true;
    }
    let is_namespace = request.kind.group.is_empty() && request.kind.plural == namespace::RESOURCE;
    if is_namespace {
        let labels = if request.operation == Verb::Delete { request.old.unwrap_or(object) } else { object };
        return label_selector::selects(selector, &labels["metadata"]["labels"]);
    }
    // Objects without namespace are not left out by their namespaces.
    let Some(name) = request.namespace else { return true };
    let Some(found) = request.snapshot.get(namespace::RESOURCE, name) else { return false };
    let labels = found.header.labels.iter().map(|(key, value)| (key.to_string(), Value::from(&**value)));
    label_selector::selects(selector, &Value::Object(labels.collect()))
}

/// The new or the old object has the labels.
fn has_labels(selector: &Value, request: &Request<'_>, object: &Value) -> bool {
    let selected =
        |object: &Value| object.is_object() && label_selector::selects(selector, &object["metadata"]["labels"]);
    label_selector::is_empty(selector) || selected(object) || request.old.is_some_and(selected)
}

fn any_rule(rules: &Value, constraints: &Value, request: &Request<'_>) -> bool {
    rules.as_array().into_iter().flatten().any(|rule| rule_matches(rule, constraints, request))
}

fn rule_matches(rule: &Value, constraints: &Value, request: &Request<'_>) -> bool {
    let kind = request.kind;
    let has = |field: &str, wanted: &str| {
        let list = rule[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).any(|one| one == "*" || one == wanted)
    };
    let operation = match request.operation {
        Verb::Create => "CREATE",
        Verb::Delete => "DELETE",
        _ => "UPDATE",
    };
    // Another version of the same resource is the same, unless the version matters.
    let version = constraints["matchPolicy"] != "Exact" || has("apiVersions", &kind.version);
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => request.namespace.is_some(),
        Some("Cluster") => request.namespace.is_none(),
        _ => true,
    };
    let names = rule["resourceNames"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = names.is_empty() || names.iter().any(|name| *name == request.name);
    let resources = rule["resources"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let resource = resources.into_iter().any(|pattern| resource_matches(pattern, &kind.plural, request.subresource));
    has("operations", operation) && has("apiGroups", &kind.group) && version && scope && named && resource
}

/// `pods`, `pods/status`, `*`, `*/*`, `pods/*`, `*/scale`
fn resource_matches(pattern: &str, resource: &str, subresource: Option<&str>) -> bool {
    let (of, sub) = pattern.split_once('/').map_or((pattern, None), |(of, sub)| (of, Some(sub)));
    let same = of == "*" || of == resource;
    same && match (sub, subresource) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some("*"), _) => true,
        (Some(sub), Some(found)) => sub == found,
        (Some(_), None) => false,
    }
}
