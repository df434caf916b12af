//! Why match conditions of webhooks and policies, and variables of policies, may not stand.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    items,
    scope::{KnownNames, compile, compile_error},
    text,
};
use crate::{
    cel::{Scope, Type, declare},
    kinds::{FieldError, names},
};

/// How many match conditions there may be.
const MAX_CONDITIONS: usize = 64;

/// Why `matchConditions` may not stand.
pub fn match_conditions(path: &str, conditions: &[Value], scope: &Scope) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    if conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, conditions.len(), MAX_CONDITIONS));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let path = format!("{path}[{i}]");
        match text(condition, "expression").trim() {
            "" => errors.push(FieldError::required(format!("{path}.expression"), "")),
            text => errors.extend(compile_error(&format!("{path}.expression"), text, scope, &Type::Bool)),
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

/// Why the variables of a policy may not stand. `known` learns them: each expression may name those before it.
pub fn variables(path: &str, spec: &Value, known: &mut KnownNames) -> Vec<FieldError> {
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
        let (path, expression) = (format!("{path}.expression"), text(variable, "expression"));
        if expression.trim().is_empty() {
            errors.push(FieldError::required(path, "expression is not specified"));
            continue;
        }
        let program = compile(expression, &known.for_rules(), &Type::Dyn);
        known.declare(name, program.as_ref().map_or(Type::Dyn, |program| program.r#type.clone()));
        errors.extend(program.err().map(|why| FieldError::invalid(path, &expression.into(), why.to_string())));
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
        let scope = KnownNames::default().for_conditions();
        let errors = match_conditions("c", conditions.as_array().unwrap(), &scope);
        let words: Vec<String> = errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(words[..2], ["c[1].expression: Required value", "c[1].name: Duplicate value: \"a\""]);
        assert!(words[2].starts_with("c[2].name: Invalid value: \"b b\""), "{words:?}");
        assert_eq!(words[3..], ["c[3].expression: Required value", "c[3].name: Required value"]);
        let many: Vec<Value> = (0..65).map(|n| json!({"name": format!("n{n}"), "expression": "true"})).collect();
        assert_eq!(match_conditions("c", &many, &scope), [FieldError::too_many("c", 65, 64)]);
    }

    #[test]
    fn a_variable_is_an_identifier() {
        assert!(is_identifier("_a1"));
        for name in ["", "1a", "a-b", "true", "while"] {
            assert!(!is_identifier(name), "{name}");
        }
        let spec = json!({"variables": [{"name": "a", "expression": "1"}, {"name": "in", "expression": ""}]});
        assert_eq!(variables("v", &spec, &mut KnownNames::of_policy(&spec)).len(), 2);
    }

    #[test]
    fn a_variable_names_those_before_it() {
        let spec = json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"},
            {"name": "c", "expression": "variables.b + 'x'"}]});
        let errors = variables("v", &spec, &mut KnownNames::of_policy(&spec));
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["v[0].expression", "v[2].expression"]);
    }

    #[test]
    fn a_condition_is_compiled_without_the_space_around_it() {
        let conditions = json!([{"name": "a", "expression": "  nothing "}]);
        let errors = match_conditions("c", conditions.as_array().unwrap(), &KnownNames::default().for_conditions());
        let words: Vec<String> = errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert!(words[0].starts_with("c[0].expression: Invalid value: \"nothing\": compilation failed"), "{words:?}");
    }
}
