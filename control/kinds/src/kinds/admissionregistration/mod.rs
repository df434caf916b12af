//! Kinds of `admissionregistration.k8s.io`: webhooks and policies that are asked about writes. Who asks them is
//! [`crate::admission`].

pub mod expressions;
mod match_resources;
pub mod mutating_webhook_configuration;
mod rule;
pub mod scope;
pub mod validating_admission_policy;
pub mod validating_admission_policy_binding;
pub mod validating_webhook_configuration;
mod webhook;

use serde_json::Value;

/// The name of the API group.
const GROUP: &str = "admissionregistration.k8s.io";
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
