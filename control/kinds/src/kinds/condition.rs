//! `Condition` of `meta/v1`, as newer kinds have it in their status.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    FieldError, names,
    reading::{number, text},
};

const MAX_REASON: usize = 1 << 10;
const MAX_MESSAGE: usize = 32 << 10;
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or \
    'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
    '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Reasons against a list of conditions: each type stands there once.
pub fn validate_all(path: &str, conditions: &[Value]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if !seen.insert(text(condition, "type")) {
            errors.push(FieldError::duplicate(format!("{path}.type"), &text(condition, "type").into()));
        }
        errors.extend(validate(&path, condition));
    }
    errors
}

/// Reasons against one condition.
pub fn validate(path: &str, condition: &Value) -> Vec<FieldError> {
    let mut errors = FieldError::each(format!("{path}.type"), &condition["type"], names::qualified_name);
    if !STATUSES.contains(&text(condition, "status")) {
        errors.push(FieldError::not_supported(format!("{path}.status"), &condition["status"], &STATUSES));
    }
    if number(condition, "observedGeneration") < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(format!("{path}.observedGeneration"), &condition["observedGeneration"], why));
    }
    if matches!(text(condition, "lastTransitionTime"), "" | "0001-01-01T00:00:00Z") {
        errors.push(FieldError::required(format!("{path}.lastTransitionTime"), ""));
    }
    let reason = text(condition, "reason");
    let path_of_reason = format!("{path}.reason");
    if reason.is_empty() {
        errors.push(FieldError::required(path_of_reason, ""));
    } else {
        if !is_reason(reason) {
            errors.push(FieldError::invalid(&path_of_reason, &condition["reason"], REASON));
        }
        if reason.len() > MAX_REASON {
            errors.push(FieldError::too_long(path_of_reason, MAX_REASON));
        }
    }
    if text(condition, "message").len() > MAX_MESSAGE {
        errors.push(FieldError::too_long(format!("{path}.message"), MAX_MESSAGE));
    }
    errors
}

fn is_reason(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| word(b) || matches!(b, b',' | b':'))
        && text.bytes().last().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reason_is_one_word() {
        let with = |reason: &str| json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": reason});
        for good in ["A", "My_Reason", "A:B,c_"] {
            assert_eq!(validate("c", &with(good)), [], "{good}");
        }
        for bad in ["", "1a", "a b", "a:", "_a"] {
            assert_eq!(validate("c", &with(bad)).len(), 1, "{bad}");
        }
    }
}
