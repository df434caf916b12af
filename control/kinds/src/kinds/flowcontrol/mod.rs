//! Kinds of `flowcontrol.apiserver.k8s.io`: which requests wait for which share of the API (KEP 1040).

pub mod bootstrap;
pub mod flow_schema;
pub mod priority_level_configuration;

use std::collections::BTreeSet;

use serde_json::Value;

use super::FieldError;

/// The name of the API group.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";

fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// Why the conditions of a status may not stand.
fn conditions(status: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, condition) in items(status, "conditions").iter().enumerate() {
        let path = format!("status.conditions[{i}].type");
        let name = text(condition, "type");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path, &name.into()));
        }
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
    }
    errors
}
