//! Asks the policies and webhooks of the cluster about a write, and holds what they may not change: names, uid, times,
//! and what the subresource does not let through.
//!
//! The fields that they change are nobody's. As in Kubernetes they see `metadata.managedFields`, and may change even
//! those, if what they make of them can be read.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use super::{
    DeleteOptions, metadata,
    pipeline::{Stored, take_managers},
    update::through_subresource,
};
use crate::{
    admission::{
        attributes::{Attributes, Operation, RequestForm},
        reinvocation::Reinvocation,
        versions::Versioned,
    },
    api::{
        Api, Status,
        request::Call,
        subresource::{Effect, Subresource, SubresourceKind, View},
    },
    field_management,
    request::Verb,
    store::{Object, Snapshot},
    warnings,
};

/// What a verb knows of its write that policies and webhooks are told.
#[derive(Clone, Copy, Default)]
pub struct Inquiry<'a> {
    /// The options of a deletion.
    pub deletion: Option<&'a DeleteOptions>,
    /// Whether the name was generated: who changes the new object does not see it yet.
    pub name_is_generated: bool,
    /// Whether they were asked already, about a form that led to this write.
    pub is_admitted: bool,
}

/// An inquiry about one write, once it is known that there is somebody to ask.
pub struct Begun<'a> {
    api: &'a Api,
    attributes: Attributes<'a>,
    name_is_generated: bool,
    /// As it is shown; null on creation.
    old: Value,
    /// As it is stored, without managers.
    stored: Option<Stored<'a>>,
    effect: Effect,
    view: Option<&'static View>,
}

impl<'a> Inquiry<'a> {
    /// Begins to ask; nothing where nobody is to be asked.
    pub fn begin(
        self,
        api: &'a Api,
        call: &'a Call,
        request: &crate::request::WriteRequest<'a>,
        old: Option<Stored<'a>>,
        subresource: Option<&'static Subresource>,
    ) -> Result<Option<Begun<'a>>, Status> {
        let is_admitted = self.is_admitted || subresource.is_some_and(|subresource| subresource.form_is_admitted);
        if is_admitted || !api.admission().asks(request.snapshot) {
            return Ok(None);
        }
        let operation = match request.operation {
            Verb::Create => Operation::Create,
            Verb::Delete => Operation::Delete,
            _ => Operation::Update,
        };
        let view = subresource.and_then(|subresource| subresource.view);
        let attributes = Attributes {
            form: view.and(subresource).and_then(|subresource| subresource.form.as_ref()).map(form),
            dry_run: call.query.dry_run || self.deletion.is_some_and(|options| options.dry_run),
            options: self.deletion.map_or_else(|| options(call, operation), DeleteOptions::to_json),
            namespace: request.namespace,
            name: request.name,
            subresource: request.subresource,
            ..attributes(api, call, request.snapshot, operation)
        };
        let begun = Begun {
            api,
            attributes,
            name_is_generated: self.name_is_generated,
            old: Value::Null,
            stored: old,
            effect: subresource.map_or(Effect::Update, |subresource| subresource.effect),
            view,
        };
        let shown = old.map(|old| begun.shown(old.value, &old.object.managers())).transpose()?;
        Ok(Some(Begun { old: shown.unwrap_or_default(), ..begun }))
    }
}

impl Begun<'_> {
    /// The object as the cluster's mutators leave it: what every object is given, what policies and webhooks change,
    /// and what both do once more if these changed anything.
    pub async fn mutate(
        &self,
        request: &crate::request::WriteRequest<'_>,
        mut new: Value,
        managers: &mut Cow<'_, str>,
    ) -> Result<Value, Status> {
        let admission = self.api.admission();
        let named = match self.name_is_generated {
            true => Cow::Owned(Attributes { name: "", ..self.attributes.clone() }),
            false => Cow::Borrowed(&self.attributes),
        };
        let mut state = Reinvocation::default();
        loop {
            if self.view.is_none() {
                admission.mutate(request, self.api.authorizer(), &mut new).await?;
            }
            let mut shown = self.shown(&new, managers)?;
            if self.name_is_generated
                && let Some(metadata) = shown["metadata"].as_object_mut()
            {
                metadata.shift_remove("name");
            }
            let before = shown.clone();
            let mut objects = self.objects(&named, shown);
            admission.ask_to_mutate(&named, &mut objects, &mut state).await?;
            let answered = objects.into_stored().await?;
            if answered != before {
                new = self.taken(answered, &before, new, managers)?;
            }
            if !state.begin_second() {
                return Ok(new);
            }
        }
    }

    /// Refuses the object, as it is to be stored, if anybody denies it. `snapshot` is the present state.
    pub async fn validate(&self, new: &Value, managers: &str, snapshot: &Snapshot) -> Result<(), Status> {
        let attributes = Attributes { snapshot, ..self.attributes.clone() };
        let mut objects = self.objects(&attributes, self.shown(new, managers)?);
        self.api.admission().ask_to_validate(&attributes, &mut objects).await
    }

    /// Refuses the deletion, if anybody denies it.
    pub async fn delete(&self) -> Result<(), Status> {
        ask(self.api, &self.attributes, Value::Null, &self.old, self.stored_object()).await.map(drop)
    }

    fn stored_object(&self) -> Option<&Object> {
        self.stored.map(|stored| &**stored.object)
    }

    fn objects<'o>(&'o self, attributes: &Attributes<'_>, new: Value) -> Versioned<'o> {
        Versioned::new(attributes, new, &self.old, self.stored_object())
    }

    /// An object as it is shown: the form that stands for it, or the object with its managers.
    fn shown(&self, object: &Value, managers: &str) -> Result<Value, Status> {
        if let Some(view) = self.view {
            return (view.of)(self.attributes.served, object);
        }
        let mut object = object.clone();
        if !managers.is_empty() {
            let managers = serde_json::from_str(managers).map_err(|error| Status::internal(error.to_string()))?;
            object["metadata"]["managedFields"] = managers;
        }
        Ok(object)
    }

    /// What may be taken of an answer. `before` is what was shown of `new`.
    fn taken(
        &self,
        mut answered: Value,
        before: &Value,
        new: Value,
        managers: &mut Cow<'_, str>,
    ) -> Result<Value, Status> {
        if let Some(view) = self.view {
            return (view.put)(self.attributes.served, &new, &answered);
        }
        let sent = take_managers(&mut answered).unwrap_or_default();
        if sent != before["metadata"]["managedFields"] {
            match field_management::text_of(&sent) {
                Ok(text) => *managers = Cow::Owned(text),
                Err(error) => warnings::add(format!(
                    ".metadata.managedFields was in an invalid state after admission; this could be caused by an \
                     outdated mutating admission controller; please fix your requests: {error}"
                )),
            }
        }
        let kept = &new["metadata"];
        let metadata = metadata::of(&mut answered)?;
        let name = (!self.name_is_generated).then_some(self.attributes.name);
        metadata::must_name(metadata, self.attributes.namespace, name)?;
        metadata::keep(metadata, kept);
        match &kept["resourceVersion"] {
            Value::Null => drop(metadata.shift_remove("resourceVersion")),
            version => drop(metadata.insert("resourceVersion".into(), version.clone())),
        }
        Ok(match (self.effect, self.stored) {
            (Effect::Fields(write), Some(old)) => {
                through_subresource(self.attributes.served, write.fields, answered, old.value)
            }
            _ => answered,
        })
    }
}

/// Asks about a form that is sent to a subresource and leads to something else than a write of it: an Eviction, a
/// Binding, a TokenRequest. Answers with the form as it was changed.
pub async fn admit_form(api: &Api, call: &Call, sent: &SubresourceKind, object: Value) -> Result<Value, Status> {
    let snapshot = api.store().snapshot();
    if !api.admission().asks(&snapshot) {
        return Ok(object);
    }
    let dry_run = object["deleteOptions"]["dryRun"].as_array().is_some_and(|list| !list.is_empty());
    let attributes = Attributes {
        form: Some(form(sent)),
        dry_run: dry_run || call.query.dry_run,
        options: options(call, Operation::Create),
        ..attributes(api, call, &snapshot, Operation::Create)
    };
    ask(api, &attributes, object, &Value::Null, None).await
}

/// Asks about a new object of a kind that is not stored: a review, a Binding. Answers with it as it was changed.
pub async fn admit_unstored(api: &Api, call: &Call, object: Value) -> Result<Value, Status> {
    let snapshot = api.store().snapshot();
    if !api.admission().asks(&snapshot) {
        return Ok(object);
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let attributes = Attributes {
        name: &name,
        dry_run: call.query.dry_run,
        options: options(call, Operation::Create),
        ..attributes(api, call, &snapshot, Operation::Create)
    };
    ask(api, &attributes, object, &Value::Null, None).await
}

/// Asks for changes, once more if there were any, and then for denials.
pub(super) async fn ask(
    api: &Api,
    attributes: &Attributes<'_>,
    object: Value,
    old: &Value,
    stored_old: Option<&Object>,
) -> Result<Value, Status> {
    let mut state = Reinvocation::default();
    let mut object = object;
    loop {
        let mut objects = Versioned::new(attributes, object, old, stored_old);
        api.admission().ask_to_mutate(attributes, &mut objects, &mut state).await?;
        object = objects.into_stored().await?;
        if !state.begin_second() {
            break;
        }
    }
    let mut objects = Versioned::new(attributes, object.clone(), old, stored_old);
    api.admission().ask_to_validate(attributes, &mut objects).await?;
    Ok(object)
}

/// What a request says of itself.
pub(super) fn attributes<'a>(
    api: &'a Api,
    call: &'a Call,
    snapshot: &'a Snapshot,
    operation: Operation,
) -> Attributes<'a> {
    let target = &call.target;
    Attributes {
        operation,
        served: &target.kind,
        form: None,
        subresource: target.subresource.map(|subresource| subresource.segment),
        namespace: target.namespace.as_deref(),
        name: target.name.as_deref().unwrap_or_default(),
        identity: &call.identity,
        dry_run: false,
        options: Value::Null,
        snapshot,
        authorizer: api.authorizer(),
        kinds: Arc::clone(&api.kinds().snapshot()),
    }
}

fn form(sent: &SubresourceKind) -> RequestForm<'static> {
    RequestForm { group: sent.group, version: sent.version, kind: sent.kind }
}

/// CreateOptions or UpdateOptions: a patch has those of what it comes to.
fn options(call: &Call, operation: Operation) -> Value {
    let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if call.query.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    for field in ["fieldManager", "fieldValidation"] {
        if let Some(value) = call.query.parameter(field).filter(|value| !value.is_empty()) {
            options[field] = value.into();
        }
    }
    options
}
