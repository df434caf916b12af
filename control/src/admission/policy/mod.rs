//! Admission policies: rules in CEL about any object, which bindings put to work.
//!
//! ```text
//!  policies ──compile once per change──▶ Compiled, Mutator ┐
//!  bindings ──read once per change──▶ Binding ─────────────┴─▶ request ──constraints, params, conditions──▶ verdicts
//!                                                                                                       or changes
//! ```
//!
//! | file | what it knows |
//! |---|---|
//! | `resources` | which requests a policy or a binding is about |
//! | `target` | what every policy says beside its rules; which of them are put to work on a request |
//! | `variables` | what the expressions of a policy may name |
//! | `compiled` | a ValidatingAdmissionPolicy: what must hold |
//! | `mutation` | a MutatingAdmissionPolicy: what it makes of an object |
//! | `binding` | where and with which parameters a policy works, and what becomes of a violation |
//! | `validating` | evaluates the validating policies about a request |
//! | `mutating` | has the mutating policies change its object |
//!
//! Mutating policies are evaluated only where the feature gate `MutatingAdmissionPolicy` says so.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy`.

mod binding;
mod compiled;
mod mutating;
#[cfg(test)]
mod mutating_tests;
mod mutation;
mod resources;
mod target;
#[cfg(test)]
mod tests;
mod validating;
mod variables;

use std::sync::atomic::{AtomicBool, Ordering};

use self::{binding::Binding, compiled::Compiled, mutation::Mutator};
use super::{attributes::Attributes, per_revision::PerRevision, reinvocation::Reinvocation, versions::Versioned};
use crate::{
    admission_plugins::{AdmissionPlugins, PluginName},
    metrics::AdmissionMetrics,
    status::Status,
    store::Snapshot,
};

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
const MUTATING: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io";
const MUTATING_BINDINGS: &str = "mutatingadmissionpolicybindings.admissionregistration.k8s.io";

/// The policies of the cluster.
#[derive(Debug)]
pub struct Policies {
    validating: PerRevision<Compiled>,
    bindings: PerRevision<Binding>,
    mutating: PerRevision<Mutator>,
    mutating_bindings: PerRevision<Binding>,
    /// Whether mutating policies are evaluated.
    mutates: AtomicBool,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            validating: PerRevision::new(POLICIES),
            bindings: PerRevision::new(BINDINGS),
            mutating: PerRevision::new(MUTATING),
            mutating_bindings: PerRevision::new(MUTATING_BINDINGS),
            mutates: AtomicBool::new(false),
        }
    }
}

impl Policies {
    /// Those that these plugins evaluate.
    pub fn of(plugins: &AdmissionPlugins) -> Self {
        let Self { validating, bindings, mutating, mutating_bindings, mutates } = Self::default();
        let validating = validating.only_if(plugins.has(PluginName::ValidatingAdmissionPolicy));
        let mutating = mutating.only_if(plugins.has(PluginName::MutatingAdmissionPolicy));
        Self { validating, bindings, mutating, mutating_bindings, mutates }
    }

    /// Has mutating policies evaluated from now on.
    pub fn evaluate_mutating(&self) {
        self.mutates.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is put to work.
    pub fn is_empty(&self, snapshot: &Snapshot) -> bool {
        !self.validates(snapshot) && !self.mutates(snapshot)
    }

    fn validates(&self, snapshot: &Snapshot) -> bool {
        !self.validating.is_empty(snapshot) && !self.bindings.is_empty(snapshot)
    }

    fn mutates(&self, snapshot: &Snapshot) -> bool {
        self.mutates.load(Ordering::Relaxed)
            && !self.mutating.is_empty(snapshot)
            && !self.mutating_bindings.is_empty(snapshot)
    }

    /// Whether the rules of any policy take requests like this one.
    pub fn concern(&self, attributes: &Attributes<'_>) -> bool {
        let snapshot = attributes.snapshot;
        let validates = || {
            let policies = self.validating.of(snapshot, Compiled::read);
            let mut compiled = policies.iter().filter_map(|made| made.value.as_ref());
            compiled.any(|policy| policy.target.constraints.concern(attributes))
        };
        let mutates = || {
            let policies = self.mutating.of(snapshot, Mutator::read);
            let mut mutators = policies.iter().filter_map(|made| made.value.as_ref());
            mutators.any(|policy| policy.target.constraints.concern(attributes))
        };
        self.validates(snapshot) && validates() || self.mutates(snapshot) && mutates()
    }

    /// Has the mutating policies change the object.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
        state: &mut Reinvocation,
        metrics: &AdmissionMetrics,
    ) -> Result<(), Status> {
        let snapshot = attributes.snapshot;
        if !self.mutates(snapshot) {
            return Ok(());
        }
        let policies = self.mutating.of(snapshot, Mutator::read);
        let bindings = self.mutating_bindings.of(snapshot, Binding::read);
        mutating::dispatch(&policies, &bindings, attributes, objects, state, metrics).await
    }

    /// Refuses what a validating policy denies.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
        metrics: &AdmissionMetrics,
    ) -> Result<(), Status> {
        let snapshot = attributes.snapshot;
        if !self.validates(snapshot) {
            return Ok(());
        }
        let policies = self.validating.of(snapshot, Compiled::read);
        let bindings = self.bindings.of(snapshot, Binding::read);
        validating::dispatch(&policies, &bindings, attributes, objects, metrics).await
    }
}
