//! kubectl's annotation that keeps what was applied last.

use serde_json::{Value, json};

use crate::yaml;

/// The annotation in which `apply` keeps what was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// `object` carrying itself in the annotation: JSON with its keys in order and a newline at its end, as kubectl writes
/// it.
pub fn with_last_applied(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.shift_remove(LAST_APPLIED);
    }
    // kubectl writes the map of annotations even where it is empty.
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = json!({});
    }
    let text = format!("{}\n", as_go_writes(&yaml::sorted(&object).to_string()));
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
    object
}

/// Go's encoder escapes what could end a script element of HTML; without it, each tool would find the other's
/// annotation changed.
fn as_go_writes(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            other => text.push(other),
        }
    }
    text
}

/// What the annotation of a stored object says; `None` where it has none or one that is no JSON.
pub fn original(current: &Value) -> Option<Value> {
    serde_json::from_str(current["metadata"]["annotations"][LAST_APPLIED].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_byte_for_byte_kubectls() {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"},
            "data": {"b": "1", "a": "2"}});
        let applied = with_last_applied(&object);
        assert_eq!(
            applied["metadata"]["annotations"][LAST_APPLIED],
            "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\",\"b\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"default\"}}\n"
        );
    }

    #[test]
    fn what_html_gives_a_meaning_is_escaped_as_in_go() {
        assert_eq!(as_go_writes(r#"{"a":"x > y && <z>"}"#), r#"{"a":"x \u003e y \u0026\u0026 \u003cz\u003e"}"#);
    }

    #[test]
    fn applying_what_was_read_does_not_nest_the_annotation() {
        let object = json!({"metadata": {"name": "a"}});
        let once = with_last_applied(&object);
        assert_eq!(with_last_applied(&once), once);
        assert_eq!(original(&once).expect("just written")["metadata"]["name"], "a");
    }
}
