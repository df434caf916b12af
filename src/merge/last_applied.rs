//! kubectl's annotation that keeps what was applied last.

use serde_json::{Value, json};

use crate::yaml;

pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// `object` carrying itself in the annotation: JSON with its keys in order and a newline at its end, as kubectl writes it.
pub fn with_last_applied(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.shift_remove(LAST_APPLIED);
    }
    // kubectl writes the map of annotations even where it is empty.
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = json!({});
    }
    let text = format!("{}\n", yaml::sorted(&object));
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
    object
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
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"}, "data": {"b": "1", "a": "2"}});
        let applied = with_last_applied(&object);
        assert_eq!(
            applied["metadata"]["annotations"][LAST_APPLIED],
            "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\",\"b\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"default\"}}\n"
        );
    }

    #[test]
    fn applying_what_was_read_does_not_nest_the_annotation() {
        let object = json!({"metadata": {"name": "a"}});
        let once = with_last_applied(&object);
        assert_eq!(with_last_applied(&once), once);
        assert_eq!(original(&once).expect("just written")["metadata"]["name"], "a");
    }
}
