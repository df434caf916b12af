//! `DeleteOptions`: what a client says of a deletion, in the body or in the query, and which object it must be.

use serde_json::{Value, json};

use crate::{
    api::{
        Status, Subject,
        request::{Call, body},
    },
    kinds::{FieldError, Kind},
    store::Object,
    warnings,
};

/// `DeleteOptions`, from the body or the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that the object has left; the kind's own where it is absent.
    pub grace_period_seconds: Option<i64>,
    /// `None` for the kind's default.
    pub propagation: Option<Propagation>,
    /// Precondition: the object is still this one.
    pub uid: Option<String>,
    /// Precondition: the object is still in this version.
    pub resource_version: Option<String>,
    /// Everything is checked, and nothing deleted.
    pub dry_run: bool,
}

/// What becomes of dependents. The garbage collector does it; deletion only says so, by finalizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents are deleted after the object.
    Background,
    /// Dependents are deleted before the object.
    Foreground,
    /// Dependents stay.
    Orphan,
}

impl DeleteOptions {
    /// Reads DeleteOptions from the query and the body `text`.
    pub fn of(call: &Call, text: &[u8]) -> Result<Self, Status> {
        let query = &call.query;
        // Options in a body leave those of the query unread, but that nothing is to be deleted.
        let options = match text {
            [] => {
                let grace = query.grace_period_seconds()?;
                Self::read(&Value::Null, grace, query.propagation_policy.as_deref(), query.orphan_dependents)?
            }
            text => Self::read(&body::delete_options(&call.content_type, text)?, None, None, None)?,
        };
        Ok(Self { dry_run: options.dry_run || query.dry_run, ..options })
    }

    /// From a `DeleteOptions` object, or from the query where that says nothing.
    pub fn read(body: &Value, grace: Option<i64>, policy: Option<&str>, orphan: Option<bool>) -> Result<Self, Status> {
        let policy = body["propagationPolicy"].as_str().or(policy);
        let orphan = body["orphanDependents"].as_bool().or(orphan);
        let mut errors = Vec::new();
        if let (Some(policy), Some(_)) = (policy, orphan) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", &json!(policy), why));
        }
        let propagation = match (policy, orphan) {
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (None, None) => None,
            (Some(other), _) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported("propagationPolicy", &json!(other), &supported));
                None
            }
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let dry_run = body["dryRun"].as_array().map(Vec::as_slice).unwrap_or_default();
        if dry_run.iter().any(|value| *value != "All") {
            errors.push(FieldError::not_supported("dryRun", &json!(dry_run), &["All"]));
        }
        if !errors.is_empty() {
            let subject = Subject { group: "meta.k8s.io", resource: "DeleteOptions", name: "" };
            return Err(Status::invalid(subject, &errors));
        }
        Ok(Self {
            grace_period_seconds: body["gracePeriodSeconds"].as_i64().or(grace),
            propagation,
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: !dry_run.is_empty(),
        })
    }

    /// Warns of what becomes of dependents that nothing is said of.
    pub fn warn_of_dependents(&self, kind: &Kind) {
        if let (None, Some(warning)) = (self.propagation, kind.deletion.warning) {
            warnings::add(warning.to_owned());
        }
    }

    /// As a `DeleteOptions` object.
    pub fn to_json(&self) -> Value {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(seconds) = self.grace_period_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        for (field, value) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(value) = value {
                options["preconditions"][field] = value.as_str().into();
            }
        }
        if let Some(propagation) = self.propagation {
            options["propagationPolicy"] = match propagation {
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
                Propagation::Orphan => "Orphan",
            }
            .into();
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    /// Refuses another object than the one that is meant.
    pub fn must_hold(&self, object: &Object, kind: &Kind) -> Result<(), Status> {
        let name = object.header().name();
        if kind.deletion.sets_time_alone {
            // Kinds that Kubernetes deletes in a way of their own tell it in other words.
            let subject = Subject { group: &kind.group, resource: &kind.plural, name };
            let failed = |what: &str, given: &str, found: &str| {
                let why =
                    format!("Precondition failed: {what} in precondition: {given}, {what} in object meta: {found}");
                Err(Status::conflict(subject, &why))
            };
            let revision = object.revision.to_string();
            return match (self.uid.as_deref(), self.resource_version.as_deref()) {
                (Some(uid), _) if uid != object.header().uid() => failed("UID", uid, object.header().uid()),
                (_, Some(version)) if version != revision => failed("ResourceVersion", version, &revision),
                _ => Ok(()),
            };
        }
        // Names the kind, not the resource: so does Kubernetes here.
        let subject = Subject { group: &kind.group, resource: &kind.kind, name };
        if let Some(uid) = self.uid.as_deref().filter(|uid| *uid != object.header().uid()) {
            let why = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
                 deleted and then recreated",
                object.header().uid()
            );
            return Err(Status::conflict(subject, &why));
        }
        if let Some(version) = self.resource_version.as_deref().filter(|v| *v != object.revision.to_string()) {
            let why = format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record \
                 ({}). The object might have been modified",
                object.revision
            );
            return Err(Status::conflict(subject, &why));
        }
        Ok(())
    }
}
