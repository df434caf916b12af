//! Kinds by which a caller asks the server something. They are answered from the request; nothing is stored.
//!
//! Each is one file with one value; a review is added by its file and a line in [`ALL`].

mod access;
mod local_subject_access_review;
mod self_subject_access_review;
mod self_subject_review;
mod self_subject_rules_review;
mod subject_access_review;
mod token_review;

use axum::response::Response;
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::Value;

use super::{
    Api, Status, Subject,
    request::{Call, body},
    response, write,
};
use crate::{field_management::Tracker, kinds::Kinds};

/// Every review.
const ALL: &[&Review] = &[
    &local_subject_access_review::REVIEW,
    &self_subject_access_review::REVIEW,
    &self_subject_review::REVIEW,
    &self_subject_rules_review::REVIEW,
    &subject_access_review::REVIEW,
    &token_review::REVIEW,
];

/// One kind that is answered and forgotten.
struct Review {
    group: &'static str,
    kind: &'static str,
    /// The answer to a review: the same with its `status`.
    answer: for<'a> fn(api: &'a Api, call: &'a Call, review: Value) -> BoxFuture<'a, Result<Value, Status>>,
}

/// Answers a review with its status.
pub async fn create(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let kind = &call.target.kind;
    let review = ALL.iter().find(|review| review.group == kind.group && review.kind == kind.kind);
    let subject = Subject { group: &kind.group, resource: &kind.plural, name: "" };
    let review = review.ok_or_else(|| Status::method_not_allowed(subject))?;
    let mut value = body::object(kind, &call.content_type, text, call.query.field_validation)?.tell();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        write::wipe_metadata(metadata);
    }
    let sent = |tracker: &Tracker<'_>| tracker.update(None, &value, "", None);
    let managers = write::writer(call, None).track(&Kinds::built_in(), kind, sent);
    let value = write::admit_unstored(api, call, value).await?;
    let mut answer = (review.answer)(api, call, value).await?;
    if !managers.is_empty() {
        let managers = serde_json::from_str(&managers).map_err(|error| Status::internal(error.to_string()))?;
        answer["metadata"]["managedFields"] = managers;
    }
    Ok(response::json(StatusCode::CREATED, answer.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::subresource::Subresource,
        kinds::{Kind, Storage},
    };

    #[test]
    fn every_kind_that_is_not_stored_is_answered() {
        // A Binding is no question: the subresource of the pod answers it.
        let is_review = |kind: &Kind| matches!(kind.storage, Storage::Virtual) && Subresource::poster(kind).is_none();
        for kind in Kinds::built_in().iter().filter(|kind| is_review(kind)) {
            assert!(ALL.iter().any(|review| review.group == kind.group && review.kind == kind.kind), "{kind:?}");
        }
    }
}
