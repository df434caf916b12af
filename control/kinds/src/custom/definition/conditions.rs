//! Conditions of a definition: set with the time of their last change.

use serde_json::{Value, json};

use crate::rfc3339;

/// The condition of this type.
pub fn find<'a>(definition: &'a Value, r#type: &str) -> Option<&'a Value> {
    definition["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == r#type)
}

/// Whether the condition is there and `True`.
pub fn is_true(definition: &Value, r#type: &str) -> bool {
    find(definition, r#type).is_some_and(|condition| condition["status"] == "True")
}

/// Sets a condition. Its time changes with its status alone.
pub fn set(definition: &mut Value, r#type: &str, status: &str, reason: &str, message: &str) {
    let since = match find(definition, r#type).filter(|condition| condition["status"] == status) {
        Some(same) => same["lastTransitionTime"].clone(),
        None => rfc3339::now().into(),
    };
    let condition = json!({"type": r#type, "status": status, "lastTransitionTime": since, "reason": reason,
        "message": message});
    if !definition["status"]["conditions"].is_array() {
        if !definition["status"].is_object() {
            definition["status"] = json!({});
        }
        definition["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = definition["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == r#type) {
        Some(standing) => *standing = condition,
        None => conditions.push(condition),
    }
}
