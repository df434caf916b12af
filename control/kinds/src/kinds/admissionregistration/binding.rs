//! What bindings of validating and mutating policies have in common: which policy they put to work, where, and with
//! which parameters.

use serde_json::Value;

use super::{CATEGORIES, GROUP, match_resources, parameters, text};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, prepare};

/// The declaration of a kind of bindings, but for its names, schema and validation.
pub const BINDING: BuiltIn = BuiltIn {
    group: GROUP,
    categories: CATEGORIES,
    namespaced: false,
    default,
    prepare: prepare::count_generation,
    columns: &[
        Column::name(),
        Column::text("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
        Column::text("ParamRef", "ParamRef indicates the param resource which sets the configuration param"),
        Column::age(),
    ],
    cells,
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

fn cells(binding: &Value) -> Vec<Cell> {
    let spec = &binding["spec"];
    vec![
        Cell::name(binding),
        Cell::text(text(spec, "policyName")),
        Cell::text(parameters::reference_cell(&spec["paramRef"])),
        Cell::age(binding),
    ]
}

/// Fills in what a binding does not say.
fn default(binding: &mut Value) {
    if let Some(resources) = binding.get_mut("spec").and_then(|spec| spec.get_mut("matchResources")) {
        match_resources::default(resources);
    }
}

/// Why it may not stand.
pub fn errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(spec, "policyName") {
        "" => errors.push(FieldError::required("spec.policyName", "")),
        name => errors.extend(FieldError::invalid_each("spec.policyName", &spec["policyName"], names::subdomain(name))),
    }
    if spec["paramRef"].is_object() {
        errors.extend(parameters::reference_errors("spec.paramRef", &spec["paramRef"]));
    }
    if spec["matchResources"].is_object() {
        errors.extend(match_resources::validate("spec.matchResources", &spec["matchResources"]));
    }
    errors
}
