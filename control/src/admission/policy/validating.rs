//! Evaluates the ValidatingAdmissionPolicies about a request.

use std::time::Instant;

use serde_json::{Value, json};

use super::{
    binding::{Binding, ValidationAction, namespace_object},
    compiled::Compiled,
    notes::{self, Notes},
    target::{Invocation, invocations},
};
use crate::{
    admission::{access, attributes::Attributes, expression::Input, per_revision::RevisionValue, versions::Versioned},
    deadline,
    metrics::AdmissionMetrics,
    status::Status,
    warnings,
};

/// A violation that denies the request.
struct Denial {
    message: String,
    reason: &'static str,
    code: u16,
}

/// Refuses what a policy denies: the first denial is told, all policies are evaluated.
pub async fn dispatch(
    policies: &[RevisionValue<Compiled>],
    bindings: &[RevisionValue<Binding>],
    attributes: &Attributes<'_>,
    objects: &mut Versioned<'_>,
    metrics: &AdmissionMetrics,
) -> Result<(), Status> {
    let (mut denial, mut notes) = (None, Notes::default());
    for found in invocations(policies, bindings, |policy| &policy.target, attributes, objects) {
        let own = match found {
            Ok(invocation) => {
                objects.convert(&invocation.invoked).await?;
                let mut own = None;
                for param in &invocation.params {
                    // There may be very many, and all have the time of one request.
                    deadline::must_not_be_over()?;
                    let denial = match param.read() {
                        Ok(params) => apply(&invocation, &params, attributes, objects, (metrics, &mut notes)),
                        Err(error) => {
                            let name = Some(invocation.binding.name.as_str());
                            let fails = invocation.policy.target.fails;
                            fails.then(|| denied(invocation.name, name, &error.to_string(), ""))
                        }
                    };
                    own = own.or(denial);
                    tokio::task::yield_now().await;
                }
                own
            }
            Err(wrong) => wrong.fails.then(|| denied(wrong.name, wrong.binding, &wrong.why.to_string(), "")),
        };
        denial = denial.or(own);
    }
    let Some(Denial { message, reason, code }) = denial else { return Ok(()) };
    let mut status = Status::forbidden(attributes.subject(), &message);
    (status.reason, status.code) = (reason, code);
    if let Some(details) = &mut status.details {
        details["causes"] = json!([{"message": message}]);
    }
    Err(status)
}

/// Evaluates a policy as a binding says, with one parameter; answers with a denial, if there is one.
fn apply(
    invocation: &Invocation<'_, Compiled>,
    params: &Value,
    attributes: &Attributes<'_>,
    objects: &Versioned<'_>,
    (metrics, notes): (&AdmissionMetrics, &mut Notes),
) -> Option<Denial> {
    let Invocation { name, policy, binding, invoked, .. } = invocation;
    let fails = policy.target.fails;
    let denies = |message: &str, reason: &str| denied(name, Some(&binding.name), message, reason);
    let (namespace, request) = (namespace_object(attributes.snapshot, attributes), attributes.request(invoked));
    let authorizer = &access::authorizer(attributes);
    let mut denial = None;
    let (object, old) = (objects.object(), objects.old());
    let begun = Instant::now();
    let (verdicts, annotations) =
        policy.evaluate(&Input { object, old, request: &request, namespace: &namespace, params, authorizer });
    let took = begun.elapsed();
    let count = |error, action| metrics.checked(name, &binding.name, error, action, took);
    for failed in verdicts {
        if !fails && failed.error.is_some() {
            count(failed.error_type(), "allow");
            continue;
        }
        for action in &binding.actions {
            count(failed.error_type(), action.as_str());
        }
        let message = &failed.message;
        for action in &binding.actions {
            match action {
                ValidationAction::Deny => denial = denial.or_else(|| Some(denies(message, &failed.reason))),
                ValidationAction::Warn => warnings::add(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{}': {message}",
                    binding.name
                )),
                ValidationAction::Audit => notes::note_failure(name, binding, failed.index, message),
            }
        }
    }
    for (key, value) in annotations {
        match value {
            Ok(value) => notes.add(name, binding, &format!("{name}/{key}"), value),
            Err(error) if fails => {
                count(error.error_type().as_str(), "deny");
                denial = denial.or_else(|| Some(denies(&error.to_string(), "")));
            }
            Err(_) => {}
        }
    }
    denial
}

fn denied(policy: &str, binding: Option<&str>, message: &str, reason: &str) -> Denial {
    let by = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{policy}'{by} denied request: {message}");
    let (reason, code) = match reason {
        "Forbidden" => ("Forbidden", 403),
        "Unauthorized" => ("Unauthorized", 401),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    Denial { message, reason, code }
}
