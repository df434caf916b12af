//! `/token` of a ServiceAccount: a TokenRequest is answered with a token. Nothing is stored.
//!
//! Source: `pkg/registry/core/serviceaccount/storage/token.go`. What nodes get stands in `token_for_node`.

use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Responder, Subresource, SubresourceKind, token_for_node};
use crate::{
    api::{
        Api, Status, Subject,
        request::{Call, body},
        response, write,
    },
    auth::account_token::{Bound, Reference},
    kinds::{
        FieldError,
        api_version::group_and_version,
        reading::{items, text},
    },
    rfc3339,
    store::{Object, Snapshot},
};

const FORM: SubresourceKind = SubresourceKind {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenRequest",
    schema: "io.k8s.api.authentication.v1.TokenRequest",
};

/// The declaration of this subresource.
pub static TOKEN: Subresource = Subresource {
    segment: "token",
    verbs: &["create"],
    form: Some(FORM),
    responder: Responder::Api(|api, call, body| Box::pin(create(api, call, body))),
    ..Subresource::PLAIN
};

/// How long a token is good where the request does not say.
const DEFAULT_SECONDS: i64 = 3600;
/// The life that admission asks for, by which its tokens are told from others: they are good for longer, since clients
/// of old read their token once.
const WARN_ONLY_SECONDS: i64 = 3607;
/// … for a year.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

async fn create(api: &Api, call: &Call, given: &[u8]) -> Result<Response, Status> {
    let body::Decoded { value: request, warnings, .. } =
        body::form(&FORM, &call.content_type, given, call.query.field_validation)?;
    let mut request = request;
    let (name, namespace) = (target_name(call), call.target.namespace.as_deref().unwrap_or_default());
    // Of an account that is not there nothing else is said.
    find(&api.store().snapshot(), "serviceaccounts", namespace, name)?;
    complete(&mut request, name, namespace)?;
    let mut request = write::admit_form(api, call, &FORM, request).await?;
    // Policies and webhooks may have changed it.
    complete(&mut request, name, namespace)?;
    let now = Timestamp::now();
    let issuer = api.authorizer().facts().issuer();
    let issuer = issuer.ok_or_else(|| Status::internal("this server issues no tokens"))?;

    let snapshot = api.store().snapshot();
    let account = find(&snapshot, "serviceaccounts", namespace, name)?;
    let uid = account.header().uid();
    match text(&request["metadata"], "uid") {
        "" => request["metadata"]["uid"] = uid.into(),
        asked if asked != uid => {
            let why =
                format!("the UID in the token request ({asked}) does not match the UID of the service account ({uid})");
            return Err(Status::conflict(Subject { resource: FORM.kind, ..subject(name) }, &why));
        }
        _ => {}
    }
    if let Some(node) = call.identity.node() {
        token_for_node::may_request(api, call, &snapshot, node, &request).await?;
    }
    if items(&request["spec"]["audiences"]).next().is_none() {
        request["spec"]["audiences"] = json!([issuer.url()]);
    }
    request["metadata"]["creationTimestamp"] = rfc3339::at(now).into();

    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    let mut bound = Bound {
        namespace: namespace.to_owned(),
        serviceaccount: Reference { name: name.to_owned(), uid: uid.to_owned() },
        ..Bound::default()
    };
    bind(&mut bound, &request["spec"]["boundObjectRef"], &snapshot)?;
    let audiences: Vec<String> =
        items(&request["spec"]["audiences"]).filter_map(Value::as_str).map(str::to_owned).collect();
    let is_for_us = audiences.iter().all(|audience| audience == issuer.url());
    let mut life = seconds;
    if bound.pod.is_some() && seconds == WARN_ONLY_SECONDS && is_for_us {
        bound.warnafter = Some(now.as_second().saturating_add(seconds));
        life = EXTENDED_SECONDS;
    }
    let token = issuer.issue(bound, audiences, now, life);
    let token = token.map_err(|error| Status::internal(format!("failed to generate token: {error}")))?;
    let end = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    request["status"] = json!({"token": token, "expirationTimestamp": rfc3339::at(end)});
    Ok(response::warn(response::json(StatusCode::CREATED, request.to_string()), &warnings))
}

pub(super) fn target_name(call: &Call) -> &str {
    call.target.name.as_deref().unwrap_or_default()
}

fn subject(name: &str) -> Subject<'_> {
    Subject { group: FORM.group, resource: FORM.kind, name }
}

/// Fills in what a request may leave out. Refuses one for another account, and a life that no token may have.
fn complete(request: &mut Value, name: &str, namespace: &str) -> Result<(), Status> {
    let metadata = write::metadata_of(request)?;
    let said = |metadata: &serde_json::Map<String, Value>, field: &str| {
        metadata.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    if said(metadata, "namespace").is_some_and(|said| said != namespace) {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if let Some(other) = said(metadata, "name").filter(|said| said != name) {
        let why = "must match the service account name if specified";
        let error = FieldError::invalid("metadata.name", &other.into(), why);
        return Err(Status::invalid(subject(name), &[error]));
    }
    metadata.insert("name".into(), name.into());
    metadata.insert("namespace".into(), namespace.into());
    let seconds = &mut request["spec"]["expirationSeconds"];
    if seconds.is_null() {
        *seconds = DEFAULT_SECONDS.into();
    }
    let why = match seconds.as_i64().unwrap_or_default() {
        ..600 => "may not specify a duration less than 10 minutes",
        0x1_0000_0001.. => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    Err(Status::invalid(subject(""), &[FieldError::invalid("spec.expirationSeconds", seconds, why)]))
}

pub(super) fn find<'a>(
    snapshot: &'a Snapshot,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<&'a Object, Status> {
    let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let found = snapshot.get(resource, &key).map(|found| &**found);
    found.ok_or_else(|| Status::not_found(Subject { group: "", resource, name }))
}

fn reference(object: &Object) -> Reference {
    Reference { name: object.header().name().to_string(), uid: object.header().uid().to_string() }
}

/// Binds a token to the object that a request names, if it names one.
fn bind(bound: &mut Bound, to: &Value, snapshot: &Snapshot) -> Result<(), Status> {
    if to.is_null() {
        return Ok(());
    }
    let (version, kind, name) = (text(to, "apiVersion"), text(to, "kind"), text(to, "name"));
    let (group, _) = group_and_version(version);
    let found = match (group, kind) {
        ("", "Pod") => {
            let found = find(snapshot, "pods", &bound.namespace, name)?;
            let pod = write::parse(found)?;
            let account = &bound.serviceaccount.name;
            if text(&pod["spec"], "serviceAccountName") != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount \
                     name."
                )));
            }
            let node = text(&pod["spec"], "nodeName");
            bound.node = match snapshot.get("nodes", node) {
                _ if node.is_empty() => None,
                Some(node) => Some(reference(node)),
                None => Some(Reference { name: node.to_owned(), uid: String::new() }),
            };
            bound.pod = Some(reference(found));
            found
        }
        ("", "Node") => {
            let found = find(snapshot, "nodes", "", name)?;
            bound.node = Some(reference(found));
            found
        }
        ("", "Secret") => {
            let found = find(snapshot, "secrets", &bound.namespace, name)?;
            bound.secret = Some(reference(found));
            found
        }
        _ => {
            let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
            return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
        }
    };
    let uid = text(to, "uid");
    if !uid.is_empty() && uid != found.header().uid() {
        return Err(Status::conflict(Subject { group: "", resource: kind, name }, &other_uid(uid)));
    }
    Ok(())
}

pub(super) fn other_uid(uid: &str) -> String {
    format!(
        "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
         deleted and then recreated"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_completed_or_refused() {
        let mut request = json!({"spec": {"audiences": []}});
        complete(&mut request, "robot", "a").unwrap();
        assert_eq!(request["metadata"], json!({"name": "robot", "namespace": "a"}));
        assert_eq!(request["spec"]["expirationSeconds"], 3600);
        let refusal = |request: Value| {
            let status = complete(&mut request.clone(), "robot", "a").unwrap_err();
            (status.code, status.message)
        };
        let words = "the namespace of the provided object does not match the namespace sent on the request";
        assert_eq!(refusal(json!({"metadata": {"namespace": "b"}})), (400, words.to_owned()));
        for (request, words) in [
            (
                json!({"metadata": {"name": "other"}}),
                "TokenRequest.authentication.k8s.io \"robot\" is invalid: metadata.name: Invalid value: \"other\": \
                 must match the service account name if specified",
            ),
            (
                json!({"spec": {"expirationSeconds": 599}}),
                "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may \
                 not specify a duration less than 10 minutes",
            ),
            (
                json!({"spec": {"expirationSeconds": 4_294_967_297_i64}}),
                "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: \
                 4294967297: may not specify a duration larger than 2^32 seconds",
            ),
        ] {
            assert_eq!(refusal(request), (422, words.to_owned()));
        }
    }
}
