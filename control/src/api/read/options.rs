//! Which state a read is answered from: `resourceVersion`, `resourceVersionMatch`, `limit` and `continue`, checked and
//! resolved as `k8s.io/apiserver` does.

use std::time::Duration;

use serde_json::Value;

use super::{
    continue_token::{ContinueToken, TokenDecodeError},
    prefix,
};
use crate::{
    api::{Api, Status, Subject, request::Call},
    kinds::FieldError,
    request::{
        accept::ResponseForm,
        query::{IncludeObject, Query, Version, VersionMatch, number_error},
    },
    store::{Snapshot, Store},
};

/// How long a read waits for a revision that was not reached yet. As in Kubernetes.
const WAIT: Duration = Duration::from_secs(3);

/// Kubernetes' words for a list whose state is gone.
const LIST_EXPIRED: &str = "The resourceVersion for the provided list is too old.";
/// The same for the next page of a list, with a token to go on with.
const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You \
    can start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Why a list has no state to be answered from.
pub enum NoState {
    /// Refused.
    Refused(Status),
    /// The state of the first page is gone; the list can go on with this token, at another state.
    Inconsistent(Status, ContinueToken),
}

impl From<Status> for NoState {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Refuses options that do not go together in a list.
pub fn check_list(query: &Query) -> Result<(), Status> {
    let mut errors = Vec::new();
    if let Some(version_match) = query.resource_version_match {
        let mut forbid = |why: &str| errors.push(FieldError::forbidden("resourceVersionMatch", why));
        if query.resource_version.is_none() {
            forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if query.r#continue.is_some() {
            forbid("resourceVersionMatch is forbidden when continue is provided");
        }
        if version_match == VersionMatch::Unknown {
            errors.push(unknown_match(query, &["Exact", "NotOlderThan", ""]));
        }
        if version_match == VersionMatch::Exact && query.resource_version == Some(Version::Any) {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden("resourceVersionMatch", why));
        }
    }
    if query.send_initial_events.is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    refuse_any(&errors)
}

/// Refuses options that do not go together in a watch.
pub fn check_watch(query: &Query) -> Result<(), Status> {
    let mut errors = Vec::new();
    let version_match = query.resource_version_match;
    let mut forbid = |why: &str| errors.push(FieldError::forbidden("resourceVersionMatch", why));
    if query.send_initial_events.is_some() && version_match != Some(VersionMatch::NotOlderThan) {
        forbid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if version_match.is_some() {
        if query.send_initial_events.is_none() {
            forbid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if version_match != Some(VersionMatch::NotOlderThan) {
            errors.push(unknown_match(query, &["NotOlderThan"]));
        }
        if query.r#continue.is_some() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden("resourceVersionMatch", why));
        }
    }
    refuse_any(&errors)
}

fn unknown_match(query: &Query, supported: &[&str]) -> FieldError {
    let given = query.parameter("resourceVersionMatch").unwrap_or_default();
    FieldError::not_supported("resourceVersionMatch", &given.into(), supported)
}

fn refuse_any(errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(Subject { group: "meta.k8s.io", resource: "ListOptions", name: "" }, errors))
}

/// Refuses a Table whose rows are to carry what is not known.
pub fn check_table(call: &Call) -> Result<(), Status> {
    if !matches!(call.accepted.form, ResponseForm::Table(_)) || call.query.include_object != IncludeObject::Unknown {
        return Ok(());
    }
    let given = Value::from(call.query.parameter("includeObject").unwrap_or_default());
    let error = FieldError::invalid("includeObject", &given, "must be 'Metadata', 'Object', 'None', or empty");
    Err(Status::bad_request(format!("Unable to convert to Table as requested: {}: {}", error.path, error.message)))
}

/// What is wrong with a `resourceVersion` that is no number.
pub fn malformed_version(query: &Query) -> FieldError {
    let given = query.parameter("resourceVersion").unwrap_or_default();
    let why = given.parse::<u64>().err().map_or("invalid syntax", |error| number_error(&error));
    let detail = format!("strconv.ParseUint: parsing {given:?}: {why}");
    FieldError::invalid("resourceVersion", &given.into(), detail)
}

fn bad_version(query: &Query) -> Status {
    let FieldError { path, message, .. } = malformed_version(query);
    Status::bad_request(format!("invalid resource version: {path}: {message}"))
}

/// The latest state, or a later one than was asked for: a read waits a while for it.
pub async fn not_older_than(store: &dyn Store, query: &Query) -> Result<Snapshot, Status> {
    match query.resource_version {
        Some(Version::Malformed) => Err(bad_version(query)),
        Some(Version::Of(revision)) => {
            wait_for(store, revision).await?;
            Ok(store.snapshot())
        }
        None | Some(Version::Any) => Ok(store.snapshot()),
    }
}

/// Waits until a revision can be seen; a 504 with `ResourceVersionTooLarge` where that takes too long.
pub async fn wait_for(store: &dyn Store, revision: u64) -> Result<(), Status> {
    let reached = store.wait_for(revision, WAIT).await;
    if reached < revision { Err(Status::version_too_large(revision, reached)) } else { Ok(()) }
}

/// The state that a list is answered from, and the token it goes on with.
pub async fn state_of_list(
    api: &Api,
    call: &Call,
    resource: &str,
) -> Result<(Snapshot, Option<ContinueToken>), NoState> {
    let (store, query) = (api.store(), &call.query);
    if let Some(text) = &query.r#continue {
        let token = ContinueToken::decode(text, &prefix(&call.target))
            .map_err(|error: TokenDecodeError| Status::bad_request(format!("invalid continue token: {error}")))?;
        if !matches!(query.resource_version, None | Some(Version::Any)) {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(why).into());
        }
        let Some(revision) = token.revision else { return Ok((store.snapshot(), Some(token))) };
        return match store.snapshot_at(resource, revision) {
            Ok(snapshot) => Ok((snapshot, Some(token))),
            Err(_) => Err(NoState::Inconsistent(Status::expired(CONTINUE_EXPIRED), token.at_latest())),
        };
    }
    let revision = match (query.resource_version, query.resource_version_match) {
        (Some(Version::Of(revision)), Some(VersionMatch::Exact)) => revision,
        // A page without a match is one of exactly that revision, as it has been before there was a match.
        (Some(Version::Of(revision)), None) if query.limit.is_some() => revision,
        _ => return Ok((not_older_than(store, query).await?, None)),
    };
    wait_for(store, revision).await?;
    let snapshot = store.snapshot_at(resource, revision).map_err(|_| Status::expired(LIST_EXPIRED))?;
    Ok((snapshot, None))
}
