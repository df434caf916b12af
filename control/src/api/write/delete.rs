//! Deletion of one object: at once, or marked until its finalizers and its grace period let it go.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Outcome, TRIES, answer, current,
    inquiry::Inquiry,
    parse,
    pipeline::{self, Action, Committed, Ownership, Pending, Prepared, Stored},
};
use crate::{
    api::{
        Api, Status, StorageLocation, Subject,
        request::{Call, body},
        response,
    },
    encode,
    kinds::{FieldError, Kind},
    rfc3339,
    store::{Change, EventType, Object, Snapshot, Write},
    warnings,
};

/// `DeleteOptions`, from the body or the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
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

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

impl Options {
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
    fn must_hold(&self, object: &Object, kind: &Kind) -> Result<(), Status> {
        let name = &*object.header.name;
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
                (Some(uid), _) if *uid != *object.header.uid => failed("UID", uid, &object.header.uid),
                (_, Some(version)) if version != revision => failed("ResourceVersion", version, &revision),
                _ => Ok(()),
            };
        }
        // Names the kind, not the resource: so does Kubernetes here.
        let subject = Subject { group: &kind.group, resource: &kind.kind, name };
        if let Some(uid) = self.uid.as_deref().filter(|uid| **uid != *object.header.uid) {
            let why = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
                 deleted and then recreated",
                object.header.uid
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

/// What a deletion does to an object now.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The object goes at once.
    Remove,
    /// The object is stored like this, and goes when nothing holds it any more.
    Mark(Value),
    /// It is being deleted already, and nothing changes.
    Keep,
}

/// What else happens in the transaction that deletes an object.
#[derive(Default)]
pub struct Alongside {
    /// Changes the object where it stays for now.
    pub mark: Option<fn(&mut Value)>,
    /// Writes of other objects.
    pub writes: Vec<Write>,
    /// Whether policies and webhooks were asked about what led to the deletion.
    pub is_admitted: bool,
}

/// Decides a deletion.
pub fn step(kind: &Kind, old: &Value, options: &Options, now: Timestamp) -> Step {
    let mut finalizers = finalizers(&old["metadata"]["finalizers"], propagation(kind, old, options));
    if let Some(own) = kind
        .deletion
        .finalizer
        .filter(|own| old["metadata"]["deletionTimestamp"].is_null() && !finalizers.iter().any(|name| name == own))
    {
        finalizers.push(own.to_owned());
    }
    let held = !finalizers.is_empty() || super::held_by_spec(kind, old);
    let marked: Option<Timestamp> = old["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse().ok());
    let already = marked.map(|_| old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0));
    let asked = (kind.deletion.grace_seconds)(old, options.grace_period_seconds);
    let grace = match already {
        // A second deletion can only shorten the wait.
        Some(already) if options.grace_period_seconds.is_some() || asked == 0 => already.min(asked),
        Some(already) => already,
        None => asked,
    };
    if grace == 0 && !held {
        return Step::Remove;
    }
    let mut new = old.clone();
    let Some(fields) = new["metadata"].as_object_mut() else { return Step::Remove };
    if finalizers.is_empty() {
        fields.shift_remove("finalizers");
    } else {
        fields.insert("finalizers".into(), json!(finalizers));
    }
    if already != Some(grace) {
        let begun = marked.map_or(now, |at| saturating_add(at, already.unwrap_or(0).saturating_neg()));
        fields.insert("deletionTimestamp".into(), rfc3339::at(saturating_add(begun, grace)).into());
        if !kind.deletion.sets_time_alone {
            fields.insert("deletionGracePeriodSeconds".into(), grace.into());
            if let Some(generation) = fields.get("generation").and_then(Value::as_i64).filter(|_| already.is_none()) {
                fields.insert("generation".into(), generation.saturating_add(1).into());
            }
        }
    }
    (kind.deletion.begin)(&mut new);
    if new == *old { Step::Keep } else { Step::Mark(new) }
}

/// What was asked for, or else what is usual for the kind, unless the object says it by its finalizers.
fn propagation(kind: &Kind, old: &Value, options: &Options) -> Option<Propagation> {
    let said = || {
        let finalizers = old["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|list| list.iter().any(|name| name == ORPHAN || name == FOREGROUND))
    };
    if kind.deletion.has_no_dependents {
        return None;
    }
    let usual = || (kind.deletion.orphans_by_default && !said()).then_some(Propagation::Orphan);
    options.propagation.or_else(usual)
}

fn finalizers(stored: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let stored = stored.as_array().into_iter().flatten().filter_map(Value::as_str);
    let keep = |name: &&str| propagation.is_none() || !matches!(*name, ORPHAN | FOREGROUND);
    let added = match propagation {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) | None => None,
    };
    stored.filter(keep).chain(added).map(str::to_owned).collect()
}

/// `at` so many seconds later, or as late as a timestamp can be.
fn saturating_add(at: Timestamp, seconds: i64) -> Timestamp {
    let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(end)
}

/// Decides the deletion of `stored` and takes it through everything but the store. Answers with the stored object's
/// part in it: whether it goes at once.
pub async fn prepare(
    api: &Api,
    call: &Call,
    snapshot: &Snapshot,
    place: &StorageLocation,
    stored: &Arc<Object>,
    options: &Options,
    alongside: Alongside,
) -> Result<Prepared, Status> {
    let name = &*stored.header.name;
    options.must_hold(stored, &place.kind)?;
    let value = parse(stored)?;
    let action = match step(&place.kind, &value, options, Timestamp::now()) {
        Step::Remove => Action::Remove,
        Step::Mark(mut new) => {
            if let Some(mark) = alongside.mark {
                mark(&mut new);
            }
            Action::Mark(new)
        }
        Step::Keep => return Ok(Prepared::Unchanged),
    };
    let namespace = Some(&*stored.header.namespace).filter(|namespace| !namespace.is_empty());
    let old = Some(Stored { object: stored, value: &value });
    let ownership = Ownership::Kept;
    let inquiry = Inquiry { deletion: Some(options), is_admitted: alongside.is_admitted, ..Inquiry::default() };
    let pending = Pending { place, namespace, name, subresource: None, old, action, ownership, inquiry };
    let mut prepared = pipeline::prepare(api, call, snapshot, pending).await?;
    if let Prepared::Ready { transaction, .. } = &mut prepared {
        transaction.writes.extend(alongside.writes);
    }
    Ok(prepared)
}

/// Decides, given the stored object, whether it may be deleted and what goes along.
pub type Decide<'a> = &'a (dyn Fn(&Snapshot, &Object, &Value) -> Result<Alongside, Status> + Send + Sync);

/// Deletes the object that `call` names, if `decide` lets it. Answers with the object, and whether it is gone.
pub async fn remove_with(
    api: &Api,
    call: &Call,
    options: &Options,
    decide: Decide<'_>,
) -> Result<(Arc<Object>, bool), Status> {
    let place = api.place(&call.target)?;
    let name = call.target.name.as_deref().unwrap_or_default();
    remove_at(api, call, (&place, name), options, decide).await
}

/// The same of an object by its place and name.
pub async fn remove_at(
    api: &Api,
    call: &Call,
    (place, name): (&StorageLocation, &str),
    options: &Options,
    decide: Decide<'_>,
) -> Result<(Arc<Object>, bool), Status> {
    for _ in 0..TRIES {
        let snapshot = api.store().snapshot();
        let stored = current(&snapshot, place, name)?;
        let alongside = decide(&snapshot, &stored, &parse(&stored)?)?;
        let prepared = prepare(api, call, &snapshot, place, &stored, options, alongside).await?;
        let (transaction, removes) = match prepared {
            Prepared::Unchanged => return Ok((stored, false)),
            Prepared::Ready { transaction, removes } => (transaction, removes),
        };
        if options.dry_run {
            let marked = match transaction.writes.into_iter().next().map(|write| write.change) {
                // As it would be while something holds it.
                Some(Change::Put(draft)) => Arc::new(Object::new(draft, stored.revision, EventType::Modified)),
                _ => stored,
            };
            return Ok((marked, removes));
        }
        if let Committed::Done(object) = pipeline::commit(api, place, name, transaction).await? {
            return Ok((object, removes));
        }
    }
    Err(Status::conflict(place.subject(name), super::MODIFIED))
}

/// `DELETE` of one object.
pub async fn delete(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let options = Options::of(call, text)?;
    options.warn_of_dependents(&call.target.kind);
    let (object, gone) = remove_with(api, call, &options, &|_, _, _| Ok(Alongside::default())).await?;
    let kind = &call.target.kind;
    if gone && kind.deletion.ends_gracefully {
        return answer(call, StatusCode::OK, &ended(kind, &object)?).await;
    }
    if !gone || kind.deletion.returns_object {
        return answer(call, StatusCode::OK, &Outcome::Stored(object)).await;
    }
    let mut details = json!({"name": &*object.header.name});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    details["kind"] = json!(kind.plural);
    details["uid"] = json!(&*object.header.uid);
    Ok(response::json(StatusCode::OK, success(details).to_string()))
}

/// An object that is gone, as it was told to end without grace.
fn ended(kind: &Kind, object: &Object) -> Result<Outcome, Status> {
    let mut value = parse(object)?;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        if metadata.get("deletionTimestamp").is_none_or(Value::is_null) {
            metadata.insert("deletionTimestamp".into(), rfc3339::now().into());
            let generation = metadata.get("generation").and_then(Value::as_i64).filter(|generation| *generation > 0);
            if let Some(generation) = generation {
                metadata.insert("generation".into(), generation.saturating_add(1).into());
            }
        }
        metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
    }
    let draft = encode::managed_draft(kind, &value, object.managers());
    Ok(Outcome::Dry { draft, revision: Some(object.revision) })
}

/// A `Status` that says that all went well.
fn success(details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn kind(group: &str, plural: &str) -> Arc<Kind> {
        Kinds::built_in().by_path(group, "v1", plural).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn pod(node: &str) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 20}})
    }

    #[test]
    fn a_grace_without_end_is_no_accident() {
        let options = Options { grace_period_seconds: Some(i64::MAX), ..Options::default() };
        let now = at("2024-01-01T00:00:00Z");
        let Step::Mark(marked) = step(&kind("", "pods"), &pod("n"), &options, now) else { panic!("its node ends it") };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "9999-12-30T22:00:00Z");
        let hasty = Options { grace_period_seconds: Some(-5), ..Options::default() };
        let Step::Mark(marked) = step(&kind("", "pods"), &pod("n"), &hasty, now) else { panic!("its node ends it") };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 1);
        let Step::Mark(_) = step(&kind("", "pods"), &marked, &options, Timestamp::MIN) else { return };
    }

    #[test]
    fn the_last_generation_stays_the_last() {
        let mut old = pod("n");
        old["metadata"]["generation"] = json!(i64::MAX);
        let now = at("2024-01-01T00:00:00Z");
        let Step::Mark(marked) = step(&kind("", "pods"), &old, &Options::default(), now) else {
            panic!("it has grace")
        };
        assert_eq!(marked["metadata"]["generation"], json!(i64::MAX));
    }

    #[test]
    fn a_pod_on_a_node_gets_its_grace_and_goes_with_a_deletion_without() {
        let pods = kind("", "pods");
        let Step::Mark(marked) = step(&pods, &pod("n"), &Options::default(), at("2024-01-01T00:00:00Z")) else {
            panic!("a running pod is marked");
        };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2024-01-01T00:00:20Z");
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 20);
        let later = at("2024-01-01T00:00:05Z");
        assert_eq!(step(&pods, &marked, &Options::default(), later), Step::Keep);
        let shorter = Options { grace_period_seconds: Some(5), ..Options::default() };
        let Step::Mark(shortened) = step(&pods, &marked, &shorter, later) else { panic!("the wait is shortened") };
        assert_eq!(shortened["metadata"]["deletionTimestamp"], "2024-01-01T00:00:05Z");
        let now = Options { grace_period_seconds: Some(0), ..Options::default() };
        assert_eq!(step(&pods, &marked, &now, later), Step::Remove);
    }

    #[test]
    fn a_pod_that_is_gone_says_that_it_was_told_to_end() {
        let pods = kind("", "pods");
        let mut stored = pod("");
        stored["metadata"]["generation"] = json!(1);
        let object = Object::new(encode::draft(&pods, &stored), 7, EventType::Modified);
        let shown = ended(&pods, &object).unwrap().value().unwrap();
        let metadata = &shown["metadata"];
        assert_eq!((&metadata["deletionGracePeriodSeconds"], &metadata["generation"]), (&json!(0), &json!(2)));
        assert!(metadata["deletionTimestamp"].is_string());
    }

    #[test]
    fn a_pod_that_no_node_runs_goes_at_once() {
        let pods = kind("", "pods");
        let now = at("2024-01-01T00:00:00Z");
        assert_eq!(step(&pods, &pod(""), &Options::default(), now), Step::Remove);
        let mut over = pod("n");
        over["status"] = json!({"phase": "Succeeded"});
        assert_eq!(step(&pods, &over, &Options::default(), now), Step::Remove);
    }

    #[test]
    fn finalizers_hold_an_object_and_policies_are_finalizers() {
        let maps = kind("", "configmaps");
        let now = at("2024-01-01T00:00:00Z");
        let held = json!({"metadata": {"name": "c", "finalizers": ["a/b"]}});
        let Step::Mark(marked) = step(&maps, &held, &Options::default(), now) else { panic!("it is held") };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        let free = json!({"metadata": {"name": "c"}});
        for (propagation, finalizer) in [(Propagation::Orphan, ORPHAN), (Propagation::Foreground, FOREGROUND)] {
            let options = Options { propagation: Some(propagation), ..Options::default() };
            let Step::Mark(marked) = step(&maps, &free, &options, now) else { panic!("it is held by its policy") };
            assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        }
        let options = Options { propagation: Some(Propagation::Background), ..Options::default() };
        let orphaned = json!({"metadata": {"name": "c", "finalizers": [ORPHAN]}});
        assert_eq!(step(&maps, &orphaned, &options, now), Step::Remove);
    }

    #[test]
    fn pods_of_a_job_stay_unless_they_are_named() {
        let jobs = Kinds::built_in().by_path("batch", "v1", "jobs").unwrap();
        let now = at("2024-01-01T00:00:00Z");
        let job = json!({"metadata": {"name": "j"}});
        let Step::Mark(marked) = step(&jobs, &job, &Options::default(), now) else { panic!("its pods are orphaned") };
        assert_eq!(marked["metadata"]["finalizers"], json!([ORPHAN]));
        let options = Options { propagation: Some(Propagation::Background), ..Options::default() };
        assert_eq!(step(&jobs, &job, &options, now), Step::Remove);
        let foreground = json!({"metadata": {"name": "j", "finalizers": [FOREGROUND]}});
        let Step::Mark(marked) = step(&jobs, &foreground, &Options::default(), now) else { panic!("it is held") };
        assert_eq!(marked["metadata"]["finalizers"], json!([FOREGROUND]), "it says so itself");
    }

    #[test]
    fn a_namespace_is_terminating_until_it_is_finalized() {
        let namespace =
            json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let step = step(&kind("", "namespaces"), &namespace, &Options::default(), at("2024-01-01T00:00:00Z"));
        let Step::Mark(marked) = step else { panic!("its content goes first") };
        assert_eq!(marked["status"]["phase"], "Terminating");
    }

    #[test]
    fn a_definition_and_a_namespace_are_told_the_time_of_their_deletion_alone() {
        let definitions = kind("apiextensions.k8s.io", "customresourcedefinitions");
        let object = json!({"metadata": {"name": "d", "generation": 1}, "status": {}});
        let options = Options { propagation: Some(Propagation::Foreground), ..Options::default() };
        let Step::Mark(marked) = step(&definitions, &object, &options, at("2024-01-01T00:00:00Z")) else {
            panic!("its objects go first");
        };
        let metadata = &marked["metadata"];
        assert_eq!(metadata["deletionTimestamp"], "2024-01-01T00:00:00Z");
        assert_eq!((&metadata["deletionGracePeriodSeconds"], &metadata["generation"]), (&Value::Null, &json!(1)));
        assert_eq!(metadata["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    }

    #[test]
    fn contradicting_options_are_refused() {
        assert!(Options::read(&json!({"propagationPolicy": "Sideways"}), None, None, None).is_err());
        assert!(
            Options::read(&json!({"propagationPolicy": "Orphan", "orphanDependents": true}), None, None, None).is_err()
        );
    }
}
