//! What policies note of a request: in the service's log, at once and whole, and in its audit event.

use std::collections::BTreeMap;

use serde_json::json;

use super::binding::Binding;
use crate::audit::current;

/// The audit annotations of policies: several bindings and parameters may give one key different values, which its
/// event has together. Dropped, they are in the event: however the evaluation ends.
#[derive(Default)]
pub struct Notes(BTreeMap<String, Vec<String>>);

/// The most bytes of a value in an event.
const MAX_NOTE: usize = 10 * 1024;
const VALIDATION_FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

impl Notes {
    /// Notes a value under a key.
    pub fn add(&mut self, policy: &str, binding: &Binding, key: &str, mut value: String) {
        log(policy, binding, key, &value);
        if !current::is_audited() {
            return;
        }
        value.truncate(value.floor_char_boundary(MAX_NOTE));
        let values = self.0.entry(key.to_owned()).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        for (key, values) in std::mem::take(&mut self.0) {
            current::annotate(&key, || values.join(", "));
        }
    }
}

/// Notes a validation that does not hold, for a binding with the action Audit. An event has the first of them, as in
/// Kubernetes.
pub fn note_failure(policy: &str, binding: &Binding, index: usize, message: &str) {
    log(policy, binding, VALIDATION_FAILURE, message);
    current::annotate_first(VALIDATION_FAILURE, || {
        let actions: Vec<&str> = binding.actions.iter().map(|action| action.name()).collect();
        json!([{"message": message, "policy": policy, "binding": binding.name, "expressionIndex": index,
            "validationActions": actions}])
        .to_string()
    });
}

fn log(policy: &str, binding: &Binding, key: &str, value: &str) {
    tracing::info!(policy, binding = binding.name, key, value, "audit annotation of an admission policy");
}
