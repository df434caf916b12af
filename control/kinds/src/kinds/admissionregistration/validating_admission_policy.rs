//! ValidatingAdmissionPolicy: expressions that every matching write must meet (KEP 3488).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    CATEGORIES, GROUP, is_unknown, items, parameters, policy,
    scope::{KnownNames, compile, compile_error},
    text,
};
use crate::{
    cel::Type,
    kinds::{BuiltIn, Cell, Column, FieldError, condition, names, prepare},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    categories: CATEGORIES,
    namespaced: false,
    subresources: &["status"],
    default: policy::default,
    validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        prepare::count_generation(new, old);
    },
    columns: &[
        Column::name(),
        Column::integer(
            "Validations",
            "Validations indicates the number of validation rules defined in this configuration",
        ),
        Column::text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::age(),
    ],
    cells: |object| {
        let spec = &object["spec"];
        let count = i64::try_from(items(spec, "validations").len()).unwrap_or(i64::MAX);
        let parameter = parameters::kind_cell(&spec["paramKind"]);
        vec![Cell::name(object), Cell::integer(count), Cell::text(parameter), Cell::age(object)]
    },
    schema: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
/// How many audit annotations there may be.
const MAX_ANNOTATIONS: usize = 20;
/// Bytes of the expression of an audit annotation's value.
const MAX_ANNOTATION_EXPRESSION: usize = 5 << 10;

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    const NOTHING: &str = "validations or auditAnnotations must contain at least one item";
    let spec = &new["spec"];
    // An update of the status, or of metadata: what was stored before is not compiled again.
    if let Some(old) = old.filter(|old| old["spec"] == *spec) {
        return if old["status"] == new["status"] { Vec::new() } else { status_errors(&new["status"]) };
    }
    let mut known = KnownNames::of_policy(spec);
    let mut errors = policy::target_errors(spec);
    errors.extend(policy::expression_errors(spec, old, &mut known));
    let (validations, annotations) = (items(spec, "validations"), items(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        errors.push(FieldError::required("spec.validations", NOTHING));
        errors.push(FieldError::required("spec.auditAnnotations", NOTHING));
    }
    for (i, validation) in validations.iter().enumerate() {
        errors.extend(validation_errors(&format!("spec.validations[{i}]"), validation, &known));
    }
    if annotations.len() > MAX_ANNOTATIONS {
        let why = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid("spec.auditAnnotations", &spec["auditAnnotations"], why));
    }
    let name = text(&new["metadata"], "name");
    let mut keys = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let path = format!("spec.auditAnnotations[{i}]");
        errors.extend(annotation_errors(&path, name, annotation, &known));
        if !keys.insert(text(annotation, "key")) {
            errors.push(FieldError::duplicate(format!("{path}.key"), &annotation["key"]));
        }
    }
    errors
}

/// Why what the status says may not stand.
fn status_errors(status: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, warning) in items(&status["typeChecking"], "expressionWarnings").iter().enumerate() {
        let path = format!("status.typeChecking.expressionWarnings[{i}]");
        errors.extend(FieldError::missing(format!("{path}.warning"), &warning["warning"]));
        if text(warning, "fieldRef").trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.fieldRef"), ""));
        }
    }
    errors.extend(condition::validate_all("status.conditions", items(status, "conditions")));
    errors
}

fn validation_errors(path: &str, validation: &Value, known: &KnownNames) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path_of = |field: &str| format!("{path}.{field}");
    match text(validation, "expression") {
        blank if blank.trim().is_empty() => {
            errors.push(FieldError::required(path_of("expression"), "expression is not specified"));
        }
        rule => errors.extend(compile_error(&path_of("expression"), rule, &known.for_rules(), &Type::Bool)),
    }
    let blank = |field: &str| !text(validation, field).is_empty() && text(validation, field).trim().is_empty();
    if blank("messageExpression") {
        let why = "must be non-empty if specified";
        errors.push(FieldError::invalid(path_of("messageExpression"), &validation["messageExpression"], why));
    } else if !text(validation, "messageExpression").is_empty() {
        let (path, message) = (path_of("messageExpression"), text(validation, "messageExpression"));
        errors.extend(compile_error(&path, message, &known.for_messages(), &Type::String));
    }
    if blank("message") {
        let why = "must be non-empty if specified";
        errors.push(FieldError::invalid(path_of("message"), &validation["message"], why));
    } else if text(validation, "message").trim().contains(['\n', '\r']) {
        errors.push(FieldError::invalid(path_of("message"), &validation["message"], "must not contain line breaks"));
    }
    if is_unknown(&validation["reason"], &REASONS) {
        errors.push(FieldError::not_supported(path_of("reason"), &validation["reason"], &REASONS));
    }
    errors
}

fn annotation_errors(path: &str, policy: &str, annotation: &Value, known: &KnownNames) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let key = text(annotation, "key");
    if policy.is_empty() {
        let why = "requires metadata.name be non-empty";
        errors.push(FieldError::invalid(format!("{path}.key"), &annotation["key"], why));
    } else {
        let full = format!("{policy}/{key}");
        let wrong = names::qualified_name(&full);
        errors.extend(FieldError::invalid_each(format!("{path}.key"), &full.into(), wrong));
    }
    let path = format!("{path}.valueExpression");
    let expression = text(annotation, "valueExpression");
    match expression.trim().len() {
        0 => errors.push(FieldError::required(path, "valueExpression is not specified")),
        size if size > MAX_ANNOTATION_EXPRESSION => {
            let why = format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length");
            errors.push(FieldError::required(path, &why));
        }
        _ => {
            let why = compile(expression.trim(), &known.for_rules(), &Type::Dyn).err();
            errors.extend(why.map(|why| FieldError::invalid(path, &expression.into(), why.to_string())));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(changes: Value) -> Value {
        let mut policy = json!({"metadata": {"name": "p.example.com"}, "spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"],
                "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.replicas <= 5"}]}});
        for (field, value) in changes.as_object().unwrap() {
            policy["spec"][field] = value.clone();
        }
        (KIND.default)(&mut policy);
        policy
    }

    fn words(policy: &Value, old: Option<&Value>) -> Vec<String> {
        validate(policy, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn what_the_status_of_a_policy_says_is_checked() {
        let old = policy(json!({}));
        let mut new = old.clone();
        new["status"] = json!({"typeChecking": {"expressionWarnings": [{"fieldRef": " "}]},
            "conditions": [{"type": "Ready", "status": "True", "reason": "R"}]});
        assert_eq!(
            words(&new, Some(&old)),
            [
                "status.typeChecking.expressionWarnings[0].warning: Required value",
                "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
                "status.conditions[0].lastTransitionTime: Required value",
            ]
        );
    }

    #[test]
    fn a_policy_has_rules_and_validations() {
        assert_eq!(words(&policy(json!({})), None), Vec::<String>::new());
        assert_eq!(policy(json!({}))["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
        let mut empty = json!({"spec": {}});
        (KIND.default)(&mut empty);
        assert_eq!(empty, json!({"spec": {"failurePolicy": "Fail"}}));
        assert_eq!(
            words(&empty, None),
            [
                "spec.matchConstraints: Required value",
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ]
        );
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        for (changes, expected) in [
            (
                json!({"validations": [{"expression": " "}]}),
                "spec.validations[0].expression: Required value: expression is not specified",
            ),
            (
                json!({"validations": [{"expression": "true", "message": "a\nb"}]}),
                "spec.validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks",
            ),
            (
                json!({"validations": [{"expression": "true", "reason": "Other"}]}),
                "spec.validations[0].reason: Unsupported value: \"Other\": supported values: \"Forbidden\", \
                 \"Invalid\", \"RequestEntityTooLarge\"",
            ),
            (json!({"paramKind": {"apiVersion": "v1"}}), "spec.paramKind.kind: Required value"),
            (
                json!({"paramKind": {"apiVersion": "a/b/c", "kind": "K"}}),
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            ),
            (
                json!({"variables": [{"name": "a-b", "expression": "1"}]}),
                "spec.variables[0].name: Invalid value: \"a-b\": must be a valid CEL identifier",
            ),
            (
                json!({"auditAnnotations": [{"key": "k"}]}),
                "spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified",
            ),
        ] {
            assert_eq!(words(&policy(changes), None), [expected]);
        }
    }

    #[test]
    fn match_conditions_that_stay_are_not_judged_again() {
        let old = policy(json!({"matchConditions": [{"name": "a", "expression": ""}]}));
        assert_eq!(words(&old, None).len(), 1);
        assert!(words(&old, Some(&old)).is_empty());
    }

    #[test]
    fn expressions_are_compiled_beside_the_rest() {
        let broken = policy(json!({"paramKind": {"apiVersion": "v1"}, "validations": [
            {"expression": "1 +", "messageExpression": "authorizer"}, {"expression": "variables.none"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "none"}]}));
        let told = words(&broken, None);
        let paths: Vec<&str> = told.iter().map(|words| words.split(": ").next().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "spec.paramKind.kind",
                "spec.validations[0].expression",
                "spec.validations[0].messageExpression",
                "spec.validations[1].expression",
                "spec.auditAnnotations[0].valueExpression"
            ]
        );
        assert!(told[2].contains("undeclared reference to 'authorizer'"), "{told:?}");
        assert!(words(&broken, Some(&broken)).is_empty(), "what is stored is not judged again");
    }
}
