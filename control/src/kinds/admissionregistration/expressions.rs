//! The CEL expressions of webhooks and policies: where each stands, which type it must have and what it may name.
//!
//! Nothing here knows the language. [`of_webhooks`] and [`of_policy`] list the expressions of an object for whoever
//! compiles them; the functions that find errors look at what surrounds an expression.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{items, text};
use crate::kinds::{FieldError, names};

/// How many match conditions there may be.
const MAX_CONDITIONS: usize = 64;

/// What an expression is for, and so which type it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A match condition or a validation: a boolean.
    Condition,
    /// The message of a validation: a text.
    Message,
    /// The value of an audit annotation: a text or null.
    AuditAnnotation,
    /// A variable: anything.
    Variable,
}

/// An expression and what is declared for it beside `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression<'a> {
    /// `spec.validations[0].expression`
    pub path: String,
    /// As it was written; never blank.
    pub text: &'a str,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether `params` is declared. `authorizer` is, but for messages.
    pub params: bool,
    /// Names of the variables that are declared, in order.
    pub variables: Vec<&'a str>,
}

/// The expressions of a webhook configuration.
pub fn of_webhooks(configuration: &Value) -> Vec<Expression<'_>> {
    let hooks = items(configuration, "webhooks").iter().enumerate();
    hooks.flat_map(|(i, hook)| of_conditions(&format!("webhooks[{i}]"), hook, false)).collect()
}

/// The expressions of a ValidatingAdmissionPolicy.
pub fn of_policy(policy: &Value) -> Vec<Expression<'_>> {
    let spec = &policy["spec"];
    let params = spec["paramKind"].is_object();
    let mut all = of_conditions("spec", spec, params);
    let mut declared: Vec<&str> = Vec::new();
    for (i, variable) in items(spec, "variables").iter().enumerate() {
        let path = format!("spec.variables[{i}]");
        all.extend(one(&path, variable, "expression", Purpose::Variable, params, &declared));
        declared.push(text(variable, "name"));
    }
    for (i, validation) in items(spec, "validations").iter().enumerate() {
        let path = format!("spec.validations[{i}]");
        all.extend(one(&path, validation, "expression", Purpose::Condition, params, &declared));
        all.extend(one(&path, validation, "messageExpression", Purpose::Message, params, &declared));
    }
    for (i, annotation) in items(spec, "auditAnnotations").iter().enumerate() {
        let path = format!("spec.auditAnnotations[{i}]");
        all.extend(one(&path, annotation, "valueExpression", Purpose::AuditAnnotation, params, &declared));
    }
    all
}

fn of_conditions<'a>(path: &str, owner: &'a Value, params: bool) -> Vec<Expression<'a>> {
    let conditions = items(owner, "matchConditions").iter().enumerate();
    let of = |(i, condition): (usize, &'a Value)| {
        one(&format!("{path}.matchConditions[{i}]"), condition, "expression", Purpose::Condition, params, &[])
    };
    conditions.filter_map(of).collect()
}

fn one<'a>(
    path: &str,
    owner: &'a Value,
    field: &str,
    purpose: Purpose,
    params: bool,
    declared: &[&'a str],
) -> Option<Expression<'a>> {
    let text = text(owner, field);
    let variables = declared.to_vec();
    (!text.trim().is_empty()).then(|| Expression { path: format!("{path}.{field}"), text, purpose, params, variables })
}

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
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let shaped = name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    shaped && !RESERVED.contains(&name)
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

    #[test]
    fn every_expression_is_listed_with_what_it_may_name() {
        let policy = json!({"spec": {"paramKind": {"kind": "K"},
            "matchConditions": [{"name": "m", "expression": "1"}, {"name": "blank", "expression": " "}],
            "variables": [{"name": "a", "expression": "2"}, {"name": "b", "expression": "variables.a"}],
            "validations": [{"expression": "3", "messageExpression": "4"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "5"}]}});
        let all = of_policy(&policy);
        let listed: Vec<(&str, &str, Purpose, usize)> =
            all.iter().map(|e| (e.path.as_str(), e.text, e.purpose, e.variables.len())).collect();
        assert_eq!(
            listed,
            [
                ("spec.matchConditions[0].expression", "1", Purpose::Condition, 0),
                ("spec.variables[0].expression", "2", Purpose::Variable, 0),
                ("spec.variables[1].expression", "variables.a", Purpose::Variable, 1),
                ("spec.validations[0].expression", "3", Purpose::Condition, 2),
                ("spec.validations[0].messageExpression", "4", Purpose::Message, 2),
                ("spec.auditAnnotations[0].valueExpression", "5", Purpose::AuditAnnotation, 2),
            ]
        );
        assert!(all.iter().all(|e| e.params));
        let hooks = json!({"webhooks": [{}, {"matchConditions": [{"name": "m", "expression": "true"}]}]});
        assert_eq!(of_webhooks(&hooks)[0].path, "webhooks[1].matchConditions[0].expression");
    }
}
