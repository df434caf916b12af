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
//! | `notes` | what validating policies note in the service's log and in audit events |
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
mod notes;
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
    /// `None` where their plugin is off.
    validating: Option<BoundPolicies<Compiled>>,
    /// `None` where their plugin is off.
    mutating: Option<BoundPolicies<Mutator>>,
    /// Whether mutating policies are evaluated.
    mutates: AtomicBool,
}

/// The policies of one kind, and what puts them to work.
#[derive(Debug)]
struct BoundPolicies<P> {
    policies: PerRevision<P>,
    bindings: PerRevision<Binding>,
}

impl<P> BoundPolicies<P> {
    fn new(policies: &'static str, bindings: &'static str) -> Self {
        Self { policies: PerRevision::new(policies), bindings: PerRevision::new(bindings) }
    }

    fn is_empty(&self, snapshot: &Snapshot) -> bool {
        self.policies.is_empty(snapshot) || self.bindings.is_empty(snapshot)
    }
}

impl Policies {
    /// Those that these plugins evaluate.
    pub fn new(plugins: &AdmissionPlugins) -> Self {
        let (validates, mutates) =
            (plugins.has(PluginName::ValidatingAdmissionPolicy), plugins.has(PluginName::MutatingAdmissionPolicy));
        Self {
            validating: validates.then(|| BoundPolicies::new(POLICIES, BINDINGS)),
            mutating: mutates.then(|| BoundPolicies::new(MUTATING, MUTATING_BINDINGS)),
            mutates: AtomicBool::new(false),
        }
    }

    /// Has mutating policies evaluated from now on.
    pub fn evaluate_mutating(&self) {
        self.mutates.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is put to work.
    pub fn is_empty(&self, snapshot: &Snapshot) -> bool {
        self.validating(snapshot).is_none() && self.mutating(snapshot).is_none()
    }

    /// The validating policies, if any are put to work.
    fn validating(&self, snapshot: &Snapshot) -> Option<&BoundPolicies<Compiled>> {
        self.validating.as_ref().filter(|bound| !bound.is_empty(snapshot))
    }

    /// The mutating policies, if any are put to work.
    fn mutating(&self, snapshot: &Snapshot) -> Option<&BoundPolicies<Mutator>> {
        let mutating = self.mutating.as_ref().filter(|_| self.mutates.load(Ordering::Relaxed));
        mutating.filter(|bound| !bound.is_empty(snapshot))
    }

    /// Whether the rules of any policy take requests like this one.
    pub fn concern(&self, attributes: &Attributes<'_>) -> bool {
        let snapshot = attributes.snapshot;
        let validates = |bound: &BoundPolicies<Compiled>| {
            let policies = bound.policies.of(snapshot, Compiled::read);
            let mut compiled = policies.iter().filter_map(|made| made.value.as_ref());
            compiled.any(|policy| policy.target.constraints.concern(attributes))
        };
        let mutates = |bound: &BoundPolicies<Mutator>| {
            let policies = bound.policies.of(snapshot, Mutator::read);
            let mut mutators = policies.iter().filter_map(|made| made.value.as_ref());
            mutators.any(|policy| policy.target.constraints.concern(attributes))
        };
        self.validating(snapshot).is_some_and(validates) || self.mutating(snapshot).is_some_and(mutates)
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
        let Some(bound) = self.mutating(snapshot) else { return Ok(()) };
        let policies = bound.policies.of(snapshot, Mutator::read);
        let bindings = bound.bindings.of(snapshot, Binding::read);
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
        let Some(bound) = self.validating(snapshot) else { return Ok(()) };
        let policies = bound.policies.of(snapshot, Compiled::read);
        let bindings = bound.bindings.of(snapshot, Binding::read);
        validating::dispatch(&policies, &bindings, attributes, objects, metrics).await
    }
}
