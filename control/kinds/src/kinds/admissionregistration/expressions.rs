//! What surrounds the CEL expressions of webhooks and policies: the names of match conditions and variables. The
//! expressions themselves are compiled by `admission::policy`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{items, text};
use crate::{
    cel::declare,
    kinds::{FieldError, names},
};

/// How many match conditions there may be.
const MAX_CONDITIONS: usize = 64;

/// Why `matchConditions` may not stand, whatever their expressions say.
pub fn match_conditions(path: &str, conditions: &[Value]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    if conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, conditions.len(), MAX_CONDITIONS));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if text(condition, "expression").trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.expression"), ""));
        }
        let (path, name) = (format!("{path}.name"), text(condition, "name"));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        errors.extend(FieldError::invalid_each(&path, &condition["name"], names::qualified_name(name)));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, &condition["name"]));
        }
    }
    errors
}

/// Why the variables of a policy may not stand, whatever their expressions say.
pub fn variables(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, variable) in items(spec, "variables").iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = text(variable, "name");
        if name.trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), "name is not specified"));
        } else if !is_identifier(name) {
            let why = "must be a valid CEL identifier";
            errors.push(FieldError::invalid(format!("{path}.name"), &variable["name"], why));
        }
        if text(variable, "expression").trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.expression"), "expression is not specified"));
        }
    }
    errors
}

/// Whether a text can name a variable of CEL.
fn is_identifier(name: &str) -> bool {
    let shaped = name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    shaped && !declare::is_reserved(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_has_a_name_and_an_expression() {
        let conditions = json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": " "},
            {"name": "b b", "expression": "true"}, {}]);
        let errors = match_conditions("c", conditions.as_array().unwrap());
        let words: Vec<String> = errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(words[..2], ["c[1].expression: Required value", "c[1].name: Duplicate value: \"a\""]);
        assert!(words[2].starts_with("c[2].name: Invalid value: \"b b\""), "{words:?}");
        assert_eq!(words[3..], ["c[3].expression: Required value", "c[3].name: Required value"]);
        let many: Vec<Value> = (0..65).map(|n| json!({"name": format!("n{n}"), "expression": "true"})).collect();
        assert_eq!(match_conditions("c", &many), [FieldError::too_many("c", 65, 64)]);
    }

    #[test]
    fn a_variable_is_an_identifier() {
        assert!(is_identifier("_a1"));
        for name in ["", "1a", "a-b", "true", "while"] {
            assert!(!is_identifier(name), "{name}");
        }
        let spec = json!({"variables": [{"name": "a", "expression": "1"}, {"name": "in", "expression": ""}]});
        assert_eq!(variables("v", &spec).len(), 2);
    }
}
