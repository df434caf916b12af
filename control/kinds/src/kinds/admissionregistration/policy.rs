//! What validating and mutating policies have in common: what they are about, when they fail, and what their
//! expressions may name.

use serde_json::{Value, json};

use super::{expressions, is_unknown, items, match_resources, parameters, scope::KnownNames};
use crate::kinds::{FieldError, pod::defaults::fill};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];

/// Fills in what a policy does not say.
pub fn default(policy: &mut Value) {
    fill(policy, "spec", || json!({}));
    if policy["spec"].is_object() {
        fill(&mut policy["spec"], "failurePolicy", || json!("Fail"));
        match_resources::default(&mut policy["spec"]["matchConstraints"]);
        drop_null(&mut policy["spec"], "matchConstraints");
    }
}

/// Looking at a field through `[]` of a mutable object makes it: nothing was said, and nothing is kept.
fn drop_null(object: &mut Value, field: &str) {
    if object[field].is_null()
        && let Some(map) = object.as_object_mut()
    {
        map.shift_remove(field);
    }
}

/// Why what a policy is about may not stand.
pub fn target_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if spec["failurePolicy"].is_null() {
        errors.push(FieldError::required("spec.failurePolicy", ""));
    } else if is_unknown(&spec["failurePolicy"], &FAILURE_POLICIES) {
        errors.push(FieldError::not_supported("spec.failurePolicy", &spec["failurePolicy"], &FAILURE_POLICIES));
    }
    if spec["paramKind"].is_object() {
        errors.extend(parameters::kind_errors("spec.paramKind", &spec["paramKind"]));
    }
    if spec["matchConstraints"].is_null() {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    } else {
        errors.extend(match_resources::validate("spec.matchConstraints", &spec["matchConstraints"]));
        if items(&spec["matchConstraints"], "resourceRules").is_empty() {
            errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
        }
    }
    errors
}

/// Why its match conditions and variables may not stand. `known` learns the variables.
pub fn expression_errors(spec: &Value, old: Option<&Value>, known: &mut KnownNames) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let unchanged =
        |old: &Value| ["paramKind", "matchConditions"].iter().all(|field| old["spec"][field] == spec[field]);
    if !old.is_some_and(unchanged) {
        let conditions = items(spec, "matchConditions");
        errors.extend(expressions::match_conditions("spec.matchConditions", conditions, &known.for_conditions()));
    }
    errors.extend(expressions::variables("spec.variables", spec, known));
    errors
}
