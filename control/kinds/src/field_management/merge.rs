//! An applied configuration laid over an object: what the configuration says wins, and nothing is taken away.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    path::PathElement,
    shape::{ItemError, Shape, TypeRef, list_item},
};

/// `live` with what `config` says. Nothing for two values that are not there.
pub fn merge(of: TypeRef<'_>, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, ItemError> {
    let (Some(_), Some(said)) = (live, config) else {
        return Ok(config.or(live).cloned());
    };
    let probe = if said.is_null() { live } else { config };
    match of.shape(probe) {
        Shape::Leaf => Ok(config.cloned()),
        shape @ (Shape::Struct(_) | Shape::Map(_)) => objects(of, shape, live, config),
        shape @ (Shape::Set | Shape::KeyedList { .. }) => lists(shape, live, config),
    }
}

fn objects(
    of: TypeRef<'_>,
    shape: Shape<'_>,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Result<Option<Value>, ItemError> {
    let fields = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (live_fields, config_fields) = (fields(live), fields(config));
    if live_fields.is_empty() && config_fields.is_empty() {
        return Ok(config.or(live).cloned());
    }
    let mut out = Map::with_capacity(live_fields.len().max(config_fields.len()));
    let names = live_fields.keys().chain(config_fields.keys().filter(|name| !live_fields.contains_key(*name)));
    for name in names {
        let field = match shape {
            Shape::Struct(object) => of.field(object, name),
            Shape::Map(item) => Some(item),
            _ => None,
        };
        let (live, config) = (live_fields.get(name), config_fields.get(name));
        let merged = match field {
            Some(field) => merge(field, live, config)?,
            None => config.or(live).cloned(),
        };
        out.extend(merged.map(|value| (name.clone(), value)));
    }
    Ok(if out.is_empty() { None } else { Some(Value::Object(out)) })
}

/// The items of both lists: in the order of the configuration where it names them, others where they were.
fn lists(shape: Shape<'_>, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, ItemError> {
    let items = |value: Option<&'_ Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (live_items, config_items) = (items(live), items(config));
    if live_items.is_empty() && config_items.is_empty() {
        return Ok(config.or(live).cloned());
    }
    let elements = |items: &[Value]| -> Result<Vec<String>, ItemError> {
        items.iter().map(|item| Ok(key(&list_item(shape, item)?))).collect()
    };
    let (live_keys, config_keys) = (elements(&live_items)?, elements(&config_items)?);
    let (in_live, in_config) = (index(&live_keys), index(&config_keys));
    let mut shared = config_keys.iter().filter(|key| in_live.contains_key(key.as_str()));
    let mut next_shared = shared.next();
    let mut merged: HashMap<&str, ()> = HashMap::new();
    let mut out = Vec::with_capacity(live_items.len().max(config_items.len()));
    let one = |live: Option<&Value>, config: Option<&Value>| match shape {
        Shape::KeyedList { item, .. } => merge(item, live, config),
        _ => Ok(config.or(live).cloned()),
    };
    // An item that stands twice in the object is not merged with: which of the two is meant?
    let live_of = |key: &str| match in_live.get(key).map(Vec::as_slice) {
        Some([only]) => Some(&live_items[*only]),
        Some([_, ..]) => Some(&Value::Null),
        _ => None,
    };
    let (mut l, mut r) = (0, 0);
    while l < live_keys.len() || r < config_keys.len() {
        if let (Some(left), Some(right)) = (live_keys.get(l), config_keys.get(r)) {
            if left == right {
                merged.insert(left, ());
                out.extend(one(live_of(left), Some(&config_items[r]))?);
                l += 1;
                r += 1;
                next_shared = shared.next();
                continue;
            }
            if in_config.contains_key(left.as_str()) && next_shared.is_some_and(|next| next != left) {
                // Shared, but another is next in the order of the configuration.
                l += 1;
                continue;
            }
        }
        if let Some(left) = live_keys.get(l) {
            if !in_config.contains_key(left.as_str()) {
                out.extend(one(Some(&live_items[l]), None)?);
                l += 1;
                continue;
            }
            if merged.contains_key(left.as_str()) {
                l += 1;
            }
        }
        if let Some(right) = config_keys.get(r) {
            merged.insert(right, ());
            out.extend(one(live_of(right), Some(&config_items[r]))?);
            r += 1;
            if next_shared == Some(right) {
                next_shared = shared.next();
            }
        }
    }
    Ok(if out.is_empty() { None } else { Some(Value::Array(out)) })
}

/// An element as a text that equal elements have in common.
fn key(element: &PathElement<'_>) -> String {
    element.to_string()
}

fn index(keys: &[String]) -> HashMap<&str, Vec<usize>> {
    let mut out: HashMap<&str, Vec<usize>> = HashMap::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        out.entry(key).or_default().push(at);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Schema;

    fn merged(kind: &str, live: Value, config: Value) -> Value {
        let schema = Schema::builtin(kind).unwrap();
        merge(TypeRef::root(schema.types(), schema.root()), Some(&live), Some(&config)).unwrap().unwrap()
    }

    fn names(pod: &Value) -> String {
        let containers = pod["spec"]["containers"].as_array().unwrap();
        containers.iter().map(|container| container["name"].as_str().unwrap()).collect::<Vec<_>>().join("")
    }

    fn pod(names: &str) -> Value {
        let containers: Vec<_> = names.chars().map(|name| json!({"name": name.to_string()})).collect();
        json!({"spec": {"containers": containers}})
    }

    #[test]
    fn the_configuration_orders_what_it_names_and_the_rest_stays_where_it_was() {
        for (live, config, result) in [
            ("abc", "b", "abc"),
            ("abc", "cb", "acb"),
            ("abc", "d", "abcd"),
            ("ab", "ba", "ba"),
            ("", "ba", "ba"),
            ("ab", "", "ab"),
            ("abcd", "dxb", "acdxb"),
        ] {
            let merged = merged("io.k8s.api.core.v1.Pod", pod(live), pod(config));
            assert_eq!(names(&merged), result, "{live} with {config}");
        }
    }

    #[test]
    fn items_with_one_key_are_merged_and_atomic_lists_replaced() {
        let live = json!({"spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "a"}],
            "containers": [{"name": "c", "image": "i", "args": ["x"]}]}});
        let config = json!({"spec": {"nodeSelector": {"c": "d"}, "tolerations": [{"key": "b"}],
            "containers": [{"name": "c", "image": "j", "args": ["y"]}]}});
        let merged = merged("io.k8s.api.core.v1.Pod", live, config.clone());
        assert_eq!(merged, config);
    }

    #[test]
    fn null_replaces_a_leaf_and_leaves_what_has_parts() {
        let live = json!({"data": {"a": "b"}, "immutable": true});
        let merged = merged("io.k8s.api.core.v1.ConfigMap", live, json!({"data": null, "immutable": null}));
        assert_eq!(merged, json!({"data": {"a": "b"}, "immutable": null}));
    }
}
