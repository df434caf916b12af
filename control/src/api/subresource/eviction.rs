//! `/eviction` of a pod: a deletion that a PodDisruptionBudget may refuse. No PodDisruptionBudget is served yet that
//! could refuse it.

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::{Effect, Subresource, SubresourceKind};
use crate::api::{
    Api, Status,
    request::{Call, body},
    response,
    write::{self, Options},
};

const FORM: SubresourceKind =
    SubresourceKind { group: "policy", version: "v1", kind: "Eviction", schema: "io.k8s.api.policy.v1.Eviction" };

/// The declaration of this subresource.
pub static EVICTION: Subresource = Subresource {
    segment: "eviction",
    verbs: &["create"],
    form: Some(FORM),
    effect: Effect::Nothing,
    by_agent: false,
    any_path: false,
    handle: |api, call, body| Box::pin(create(api, call, body)),
};

async fn create(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let body::Decoded { value: eviction, .. } =
        body::form(&FORM, &call.content_type, text, call.query.field_validation)?;
    let mut options = Options::read(&eviction["deleteOptions"], None, None, None)?;
    options.dry_run |= call.query.dry_run;
    write::remove(api, call, &options).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(response::json(StatusCode::CREATED, answer.to_string()))
}
