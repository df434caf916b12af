//! Mutating webhooks: one after the other, each on the object as the one before left it. Where one changes the object,
//! all mutators are gone through once more, and those webhooks are asked again that want it.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};

use super::{
    hook::Hook,
    refusal::{Failure, UNAVAILABLE},
    review::ReviewAnswer,
};
use crate::{
    admission::{
        attributes::Attributes,
        decoded::decoded,
        reinvocation::{MutatorKind, Reinvocation},
        versions::Versioned,
    },
    audit::current,
    kinds::Kind,
    metrics::AdmissionMetrics,
    patch,
    status::Status,
};

/// Has the webhooks change the object, each in the version that its rules name.
pub async fn dispatch(
    hooks: &[Arc<Hook>],
    attributes: &Attributes<'_>,
    objects: &mut Versioned<'_>,
    state: &mut Reinvocation,
    metrics: &AdmissionMetrics,
) -> Result<(), Status> {
    if hooks.is_empty() {
        return Ok(());
    }
    objects.convert_to_stored().await?;
    state.begin(MutatorKind::Webhooks, objects.object());
    for (index, hook) in hooks.iter().enumerate() {
        let Some(invoked) = hook.invoked(attributes, objects).await? else { continue };
        if state.skips(MutatorKind::Webhooks, &hook.uid) {
            continue;
        }
        objects.convert(&invoked).await?;
        let begun = Instant::now();
        let asked = hook.ask(attributes, &invoked, (objects.object(), objects.old()), true).await;
        let place = format!("round_{}_index_{index}", state.round());
        let patched = asked.and_then(|answer| patched((hook, &place), &answer, attributes, &invoked, objects.object()));
        hook.count(metrics, attributes.operation, true, begun, patched.as_ref().err());
        let changed = match patched {
            Ok(Some(object)) => {
                let changed = object != *objects.object();
                objects.replace(object);
                changed
            }
            Ok(None) => false,
            Err(failure) => {
                hook.failed(failure, true, metrics).inspect_err(|_| annotate_mutation(hook, &place, false))?;
                current::annotate(&format!("failed-open.{MUTATION}{place}"), || hook.name.clone());
                false
            }
        };
        annotate_mutation(hook, &place, changed);
        tracing::debug!(webhook = hook.name, configuration = hook.configuration, changed, "asked a mutating webhook");
        if changed {
            state.changed(MutatorKind::Webhooks);
        }
        state.ran(MutatorKind::Webhooks, &hook.uid, hook.reinvoked);
    }
    objects.convert_to_stored().await?;
    state.end(MutatorKind::Webhooks, objects.object());
    Ok(())
}

/// What audit events note of a mutating webhook, by the place at which it was asked.
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const PATCH: &str = "patch.webhook.admission.k8s.io/";

fn annotate_mutation(hook: &Hook, place: &str, mutated: bool) {
    current::annotate(&format!("{MUTATION}{place}"), || {
        json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated}).to_string()
    });
}

/// The object with an answer's patch, if there is one.
fn patched(
    (hook, place): (&Hook, &str),
    answer: &ReviewAnswer,
    attributes: &Attributes<'_>,
    invoked: &Kind,
    object: &Value,
) -> Result<Option<Value>, Failure> {
    let Some(text) = &answer.patch else { return Ok(None) };
    let operations: Value = serde_json::from_slice(text).map_err(|error| {
        Failure::Call(format!("received undecodable patch in webhook response: {error}"), UNAVAILABLE)
    })?;
    if !operations.is_array() {
        let why = "received undecodable patch in webhook response: it is not a list".to_owned();
        return Err(Failure::Call(why, UNAVAILABLE));
    }
    if operations.as_array().is_some_and(Vec::is_empty) {
        return Ok(None);
    }
    if object.is_null() {
        return Err(Failure::Internal(Status::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        ))));
    }
    if answer.patch_type != "JSONPatch" {
        return Err(Failure::Call(format!("unsupported patch type {:?}", answer.patch_type), UNAVAILABLE));
    }
    let patched = patch::json(invoked, object, &operations);
    let patched = patched.map_err(|status| Failure::Internal(Status::internal(status.message)))?;
    let decoded = decoded(attributes, invoked, patched).map_err(Failure::Internal)?;
    current::annotate_request(&format!("{PATCH}{place}"), || {
        let (configuration, webhook) = (&hook.configuration, &hook.name);
        json!({"configuration": configuration, "webhook": webhook, "patch": operations, "patchType": "JSONPatch"})
            .to_string()
    });
    Ok(Some(decoded))
}
