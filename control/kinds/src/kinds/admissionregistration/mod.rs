//! Kinds of `admissionregistration.k8s.io`: webhooks and policies that are asked about writes. Who asks them is
//! `admission` of the control service.
//!
//! Kubernetes serves mutating policies only where it is told to, and so does this program: [`BETA`] and [`ALPHA`].

mod binding;
pub mod expressions;
mod match_resources;
pub mod mutating_admission_policy;
pub mod mutating_admission_policy_binding;
pub mod mutating_webhook_configuration;
mod parameters;
mod policy;
mod rule;
pub mod scope;
pub mod validating_admission_policy;
pub mod validating_admission_policy_binding;
pub mod validating_webhook_configuration;
mod webhook;

use serde_json::Value;

use super::BuiltIn;

/// The name of the API group.
const GROUP: &str = "admissionregistration.k8s.io";
/// What `v1beta1` has, if it is served.
pub const BETA: [&BuiltIn; 2] = [&mutating_admission_policy::KIND, &mutating_admission_policy_binding::KIND];
/// What `v1alpha1` has, if it is served: the same objects.
pub const ALPHA: [&BuiltIn; 2] = [&mutating_admission_policy::ALPHA, &mutating_admission_policy_binding::ALPHA];

/// What `kubectl get api-extensions` lists.
const CATEGORIES: &[&str] = &["api-extensions"];

fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// Whether a field that names one of a few values is there with another one.
fn is_unknown(value: &Value, supported: &[&str]) -> bool {
    !value.is_null() && value.as_str().is_none_or(|text| !supported.contains(&text))
}
