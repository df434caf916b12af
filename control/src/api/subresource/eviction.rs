//! `/eviction` of a pod: a deletion that is asked for politely. No PodDisruptionBudget is served yet that could refuse it.

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::api::{
    Api, Status,
    request::{Call, body},
    response,
    write::{self, Options},
};

pub async fn create(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    let eviction = body::value(&call.content_type, text)?;
    let mut options = Options::read(&eviction["deleteOptions"], None, None, None)?;
    options.dry_run |= call.query.dry_run;
    write::remove(api, call, &options).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(response::json(StatusCode::CREATED, answer.to_string()))
}
