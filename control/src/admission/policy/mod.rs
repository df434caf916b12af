//! Admission policies: rules in CEL about any object, which bindings put to work.
//!
//! ```text
//!  policies ──compile once per change──▶ Compiled ┐
//!  bindings ──read once per change──▶ Binding ────┴─▶ request ──constraints, params, conditions──▶ verdicts
//! ```
//!
//! | file | what it knows |
//! |---|---|
//! | `resources` | which requests a policy or a binding is about |
//! | `variables` | what the expressions of a policy may name |
//! | `compiled` | a ValidatingAdmissionPolicy: what must hold |
//! | `binding` | where and with which parameters a policy works, and what becomes of a violation |
//! | `validating` | evaluates the validating policies about a request |
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy`.

mod binding;
mod compiled;
mod resources;
#[cfg(test)]
mod tests;
mod validating;
mod variables;

use self::{binding::Binding, compiled::Compiled};
use super::{attributes::Attributes, per_revision::PerRevision, versions::Versioned};
use crate::{metrics::AdmissionMetrics, status::Status, store::Snapshot};

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";

/// The policies of the cluster.
#[derive(Debug)]
pub struct Policies {
    validating: PerRevision<Compiled>,
    bindings: PerRevision<Binding>,
}

impl Default for Policies {
    fn default() -> Self {
        Self { validating: PerRevision::new(POLICIES), bindings: PerRevision::new(BINDINGS) }
    }
}

impl Policies {
    /// Whether nothing is put to work.
    pub fn is_empty(&self, snapshot: &Snapshot) -> bool {
        self.validating.is_empty(snapshot) || self.bindings.is_empty(snapshot)
    }

    /// Whether the rules of any policy take requests like this one.
    pub fn concern(&self, attributes: &Attributes<'_>) -> bool {
        let snapshot = attributes.snapshot;
        !self.is_empty(snapshot) && {
            let policies = self.validating.of(snapshot, Compiled::read);
            let mut compiled = policies.iter().filter_map(|made| made.value.as_ref());
            compiled.any(|policy| policy.constraints.concern(attributes))
        }
    }

    /// Refuses what a validating policy denies.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
        metrics: &AdmissionMetrics,
    ) -> Result<(), Status> {
        let snapshot = attributes.snapshot;
        if self.is_empty(snapshot) {
            return Ok(());
        }
        let policies = self.validating.of(snapshot, Compiled::read);
        let bindings = self.bindings.of(snapshot, Binding::read);
        validating::dispatch(&policies, &bindings, attributes, objects, metrics).await
    }
}
