//! From client-side apply to server-side apply: what `kubectl apply` noted in an annotation is no conflict for `kubectl
//! apply --server-side`, and the annotation goes on to say what was applied.

use serde_json::{Map, Value};

use super::{
    check::check,
    compare::{State, compare},
    conflict::Conflict,
    leaves::leaves,
    versions::type_of,
};
use crate::kinds::Kind;

/// Where client-side apply keeps what it applied.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The most that all annotations of an object may hold, in bytes of names and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Takes out of `conflicts` those about fields that still are as client-side apply left them.
pub fn forgive(kind: &Kind, live: Option<&Value>, conflicts: &mut Vec<Conflict<'_>>) {
    let Some(live) = live else { return };
    let Some(text) = live["metadata"]["annotations"][ANNOTATION].as_str() else { return };
    let Ok(last) = serde_json::from_str::<Value>(text) else { return };
    let of = type_of(kind);
    if last["apiVersion"].as_str() != Some(&kind.api_version()) || !check(of, &last).is_empty() {
        return;
    }
    let (Ok(mut allowed), Ok(difference)) = (leaves(of, &last), compare(of, State::Is(&last), State::Is(live))) else {
        return;
    };
    allowed.subtract(&difference.changed);
    allowed.subtract(&difference.removed);
    conflicts.retain_mut(|conflict| {
        conflict.fields.subtract(&allowed);
        !conflict.fields.is_empty()
    });
}

/// Where the object has the annotation, it says from now on what `config` says.
pub fn renew(object: &mut Value, config: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    if annotations.get(ANNOTATION).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(own) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.shift_remove(ANNOTATION);
    }
    // As Go writes JSON.
    let text = sorted(config).to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    annotations.insert(ANNOTATION.to_owned(), format!("{text}\n").into());
    let size = |(name, value): (&String, &Value)| name.len().saturating_add(value.as_str().map_or(0, str::len));
    if annotations.iter().map(size).fold(0, usize::saturating_add) > MAX_ANNOTATIONS {
        annotations.shift_remove(ANNOTATION);
    }
}

/// The value with the names of all objects in order, as Go writes maps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().map(|(name, v)| (name, sorted(v))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(fields))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_annotation_says_what_was_applied_where_there_is_one() {
        let config =
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"b": "1", "a": "2"}});
        let mut object = json!({"metadata": {"annotations": {ANNOTATION: "{}"}}});
        renew(&mut object, &config);
        let text = "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\",\"b\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"}}\n";
        assert_eq!(object["metadata"]["annotations"][ANNOTATION], text);
        let mut without = json!({"metadata": {"annotations": {"x": "y"}}});
        renew(&mut without, &config);
        assert_eq!(without, json!({"metadata": {"annotations": {"x": "y"}}}));
    }
}
