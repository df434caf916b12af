//! What every object has: name, namespace, labels, annotations, owner.

use serde_json::Value;

use super::page::{Page, list, map, word};
use crate::merge::LAST_APPLIED;

/// Name and namespace.
pub fn name(page: &mut Page, object: &Value) {
    page.field("Name", word(&object["metadata"]["name"]));
    if object["metadata"]["namespace"].is_string() {
        page.field("Namespace", word(&object["metadata"]["namespace"]));
    }
}

/// Annotations that are only bookkeeping are left out.
pub fn labels_and_annotations(page: &mut Page, object: &Value) {
    page.field("Labels", map(&object["metadata"]["labels"], "="));
    let mut annotations = object["metadata"]["annotations"].clone();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.shift_remove(LAST_APPLIED);
    }
    page.field("Annotations", map(&annotations, ": "));
}

/// The controller that owns the object, if one does.
pub fn controlled_by(page: &mut Page, object: &Value) {
    let owners = list(&object["metadata"]["ownerReferences"]);
    if let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) {
        page.field("Controlled By", format!("{}/{}", word(&owner["kind"]), word(&owner["name"])));
    }
}

/// A selector in the form of a query.
pub fn selector(value: &Value) -> String {
    crate::verbs::logs::label_selector(value).unwrap_or_else(|| "<none>".into())
}

/// The conditions of the status as a table.
pub fn conditions(page: &mut Page, object: &Value) {
    let conditions = list(&object["status"]["conditions"]);
    if conditions.is_empty() {
        return;
    }
    let with_reason = conditions.iter().any(|c| c["reason"].is_string());
    page.section("Conditions", |page| {
        if with_reason {
            let row = |c: &Value| {
                let text = |field: &str| c[field].as_str().unwrap_or_default().to_owned();
                [word(&c["type"]), word(&c["status"]), text("reason"), text("message")]
            };
            page.table(["Type", "Status", "Reason", "Message"], conditions.iter().map(row));
        } else {
            page.table(["Type", "Status"], conditions.iter().map(|c| [word(&c["type"]), word(&c["status"])]));
        }
    });
}
