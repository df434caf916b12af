//! Has the MutatingAdmissionPolicies change the object of a request, one after the other, each in the version that its
//! rules name.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/mutating/dispatcher.go`.

use std::{fmt::Display, time::Instant};

use serde_json::Value;

use super::{
    binding::{Binding, namespace_object},
    compiled::NO_ERROR,
    mutation::{MutationError, Mutator, PolicyError, denial},
    target::{Invocation, invocations},
};
use crate::{
    admission::{
        access,
        attributes::{Attributes, Operation},
        expression::Input,
        per_revision::RevisionValue,
        reinvocation::{MutatorKind, Reinvocation},
        versions::Versioned,
    },
    deadline,
    metrics::AdmissionMetrics,
    status::Status,
};

/// Refuses the request if a policy fails that may not.
pub async fn dispatch(
    policies: &[RevisionValue<Mutator>],
    bindings: &[RevisionValue<Binding>],
    attributes: &Attributes<'_>,
    objects: &mut Versioned<'_>,
    state: &mut Reinvocation,
    metrics: &AdmissionMetrics,
) -> Result<(), Status> {
    if attributes.operation == Operation::Delete {
        return Ok(());
    }
    let (mut active, mut errors) = (Vec::new(), Vec::new());
    for found in invocations(policies, bindings, |policy| &policy.target, attributes, objects) {
        match found {
            Ok(invocation) => active.push(invocation),
            Err(wrong) if wrong.fails => {
                errors.push(PolicyError::misconfigured(wrong.name, wrong.binding, &wrong.why));
            }
            Err(_) => {}
        }
    }
    if !active.is_empty() {
        objects.convert_to_stored().await?;
        state.begin(MutatorKind::Policies, objects.object());
        let mut made = false;
        for invocation in &active {
            objects.convert(&invocation.invoked).await?;
            for param in &invocation.params {
                // There may be very many, and all have the time of one request.
                deadline::must_not_be_over()?;
                tokio::task::yield_now().await;
                match param.read() {
                    Ok(param) => {
                        made |= mutate(invocation, &param, attributes, objects, state, (metrics, &mut errors))?;
                    }
                    Err(error) if invocation.policy.target.fails => {
                        let binding = Some(invocation.binding.name.as_str());
                        errors.push(PolicyError::misconfigured(invocation.name, binding, &error));
                    }
                    Err(_) => {}
                }
            }
        }
        if made {
            state.changed(MutatorKind::Policies);
        }
        objects.convert_to_stored().await?;
        state.end(MutatorKind::Policies, objects.object());
    }
    denial(attributes, &errors).map_or(Ok(()), Err)
}

/// Makes the mutations of a policy with one parameter; answers whether any was made.
fn mutate(
    invocation: &Invocation<'_, Mutator>,
    params: &Value,
    attributes: &Attributes<'_>,
    objects: &mut Versioned<'_>,
    state: &mut Reinvocation,
    (metrics, errors): (&AdmissionMetrics, &mut Vec<PolicyError>),
) -> Result<bool, Status> {
    let Invocation { name, policy, binding, invoked, .. } = invocation;
    let fails = policy.target.fails;
    let mut failed = |why: &dyn Display| errors.extend(fails.then(|| PolicyError::failed(name, &binding.name, why)));
    let (namespace, request) = (namespace_object(attributes.snapshot, attributes), attributes.request(invoked));
    let authorizer = &access::authorizer(attributes);
    let (object, old) = (&Value::Null, &Value::Null);
    let without = Input { object, old, request: &request, namespace: &namespace, params, authorizer };
    match policy.conditions.hold(&Input { object: objects.object(), old: objects.old(), ..without }.activation()) {
        Ok(true) => {}
        Ok(false) => return Ok(false),
        Err(error) => {
            failed(&error);
            return Ok(false);
        }
    }
    let uid = uid(name, binding, params);
    if state.skips(MutatorKind::Policies, &uid) {
        return Ok(false);
    }
    let mut made = false;
    for mutation in &policy.mutations {
        deadline::must_not_be_over()?;
        if objects.object().is_null() {
            continue;
        }
        let begun = Instant::now();
        let input = Input { object: objects.object(), old: objects.old(), ..without };
        let result = policy.apply(mutation, &input, attributes, invoked);
        let count = |error| metrics.mutated(name, &binding.name, error, begun.elapsed());
        match result {
            Ok(object) => {
                count(NO_ERROR);
                made = true;
                objects.replace(object);
            }
            Err(error) => {
                count(error.error_type().as_str());
                match error {
                    MutationError::Failed(failure) => failed(&failure),
                    MutationError::Fatal(status) => return Err(status),
                }
            }
        }
    }
    state.ran(MutatorKind::Policies, &uid, policy.reinvoked);
    Ok(made)
}

/// What a policy, its binding and a parameter together are known as between the rounds.
fn uid(policy: &str, binding: &Binding, params: &Value) -> String {
    let text = |field: &str| params["metadata"][field].as_str().unwrap_or_default();
    [policy, &binding.name, text("namespace"), text("name")].join("/")
}
