//! What the audit log records of an answer: it is made as JSON then, and put into the form that the client takes after
//! that. Decides nothing about what is recorded: see [`crate::audit`].

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http_body_util::BodyExt;

use super::{request::Call, response, subresource};
use crate::{
    audit::current,
    request::{RequestInfo, accept::Encoding},
};

/// The request as its handler is to see it: what is recorded is not compressed on its way.
pub fn handled_as(info: &Arc<RequestInfo>) -> Arc<RequestInfo> {
    match info.gzip && is_recorded(info) {
        true => Arc::new(RequestInfo { gzip: false, ..(**info).clone() }),
        false => info.clone(),
    }
}

/// Has a recorded answer made as JSON.
pub fn prepare(call: &mut Call) {
    if is_recorded(&call.info) {
        call.accepted.encoding = Encoding::Json;
        call.accepted.pretty = false;
    }
}

/// Records an answer. One that would be made while it is sent is made now.
pub async fn note(response: Response, info: &RequestInfo) -> Response {
    if current::record().is_none() || subresource::is_long_running(info) {
        return response;
    }
    let response = if is_recorded(info) { whole(response).await } else { response };
    if let Some(text) = response::whole_json(&response) {
        current::answered(response.status().as_u16(), &text);
    }
    response
}

/// Whether the object that is answered is recorded. What has no end is not.
fn is_recorded(info: &RequestInfo) -> bool {
    current::records_response() && !subresource::is_long_running(info)
}

async fn whole(response: Response) -> Response {
    if response::whole_json(&response).is_some() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => response::made_whole(parts, body.to_bytes()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be made to be recorded");
            parts.status = http::StatusCode::INTERNAL_SERVER_ERROR;
            Response::from_parts(parts, Body::empty())
        }
    }
}
