//! Mutating webhooks: one after the other, each on the object as the one before left it. Where one changes the object,
//! all mutators are gone through once more, and those webhooks are asked again that want it.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use serde_json::Value;

use super::{
    hook::Hook,
    refusal::{Failure, UNAVAILABLE},
    review::Answer,
};
use crate::{
    admission::{attributes::Attributes, versions::Versioned},
    api::patch,
    kinds::Kind,
    metrics::AdmissionMetrics,
    schema::Schema,
    status::Status,
};

/// What is remembered of the mutators of one request between the first round and the second.
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// Whether this is the second round.
    second: bool,
    /// Whether anything has changed the object, so that there is a second round.
    changed: bool,
    /// The object as the last mutators left it.
    output: Option<Value>,
    /// Those that were asked and want to be asked again.
    asked: BTreeSet<String>,
    /// Those that are asked again.
    again: BTreeSet<String>,
}

impl Reinvocation {
    /// Whether all mutators are to be gone through again. They are so once at most.
    pub fn begin_second(&mut self) -> bool {
        let begins = self.changed && !self.second;
        self.second = true;
        begins
    }

    /// To be called before the mutators of a round, with the object as it is then: what changed it between the rounds
    /// changed it after all that were asked.
    pub fn begin(&mut self, object: &Value) {
        if self.second && self.output.as_ref().is_some_and(|output| output != object) {
            self.ask_again();
        }
    }

    /// To be called after them.
    pub fn end(&mut self, object: &Value) {
        self.output = Some(object.clone());
    }

    /// Whether the mutator `uid` is left out of this round.
    pub fn skips(&self, uid: &str) -> bool {
        self.second && !self.again.contains(uid)
    }

    /// Says that a mutator ran, whether it changed the object, and whether it wants to be asked again.
    pub fn ran(&mut self, uid: &str, changed: bool, reinvoked: bool) {
        if changed {
            self.ask_again();
            self.changed = true;
        }
        if reinvoked {
            self.asked.insert(uid.to_owned());
        }
    }

    fn ask_again(&mut self) {
        self.again.append(&mut self.asked);
    }
}

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
    state.begin(objects.object());
    for hook in hooks {
        let Some(invoked) = hook.invoked(attributes, objects).await? else { continue };
        if state.skips(&hook.uid) {
            continue;
        }
        objects.convert(&invoked).await?;
        let begun = Instant::now();
        let asked = hook.ask(attributes, &invoked, (objects.object(), objects.old()), true).await;
        let patched = asked.and_then(|answer| patched(hook, &answer, attributes, &invoked, objects.object()));
        hook.count(metrics, attributes.operation, true, begun, patched.as_ref().err());
        let changed = match patched {
            Ok(Some(object)) => {
                let changed = object != *objects.object();
                objects.replace(object);
                changed
            }
            Ok(None) => false,
            Err(failure) => {
                hook.failed(failure, true, metrics)?;
                false
            }
        };
        tracing::debug!(webhook = hook.name, configuration = hook.configuration, changed, "asked a mutating webhook");
        state.ran(&hook.uid, changed, hook.reinvoked);
    }
    state.end(objects.object());
    Ok(())
}

/// The object with an answer's patch, if there is one.
fn patched(
    hook: &Hook,
    answer: &Answer,
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
    decoded(attributes, invoked, patched).map(Some).map_err(Failure::Internal)
}

/// What was made of an object, read and defaulted as if a client had sent it.
pub fn decoded(attributes: &Attributes<'_>, invoked: &Kind, object: Value) -> Result<Value, Status> {
    let refused = |why: String| Status::internal(why);
    let (api_version, kind) = match attributes.form {
        Some(form) if form.group.is_empty() => (form.version.to_owned(), form.kind),
        Some(form) => (format!("{}/{}", form.group, form.version), form.kind),
        None => (invoked.api_version(), &*invoked.kind),
    };
    if object["apiVersion"] != *api_version || object["kind"] != *kind {
        return Err(refused(format!(
            "the object is no longer of {api_version}, Kind={kind}: {}, Kind={}",
            object["apiVersion"], object["kind"]
        )));
    }
    let schema = match attributes.form {
        Some(_) => {
            let types = crate::schema::Types::builtin();
            let found = types.of_kind(&api_version, kind).and_then(|id| types.definition(id));
            found.and_then(|definition| Schema::builtin(&definition.name)).unwrap_or_else(Schema::unstructured)
        }
        None => invoked.schema.clone(),
    };
    let decoded = schema.decode_value(object).map_err(|error| refused(error.to_string()))?;
    let mut object = decoded.value;
    if attributes.form.is_none() {
        (invoked.default)(&mut object);
    }
    Ok(object)
}
