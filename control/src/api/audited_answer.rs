//! What the audit log records of an answer: it is made as JSON then, and put into the form that the client takes after
//! that. Decides nothing about what is recorded: see [`crate::audit`].

use std::sync::Arc;

use axum::response::Response;
use http_body_util::BodyExt;

use super::{Status, request::Call, response, subresource};
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

/// How an answer may be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Of a read: it is refused where there is no memory for what is recorded.
    Read {
        /// The client takes another form than that which is recorded.
        is_reencoded: bool,
    },
    /// Of what has changed something: it is told whatever it takes.
    Write,
}

/// Records what a request came to, once. An answer that would be made while it is sent is made now.
pub async fn note(
    answer: Result<Response, Status>,
    info: &RequestInfo,
    recorded: Recorded,
) -> Result<Response, Status> {
    let Some(request) = current::request() else { return answer };
    if subresource::is_long_running(info) || current::is_answered() {
        return answer;
    }
    let answer = match answer {
        Ok(response) if is_recorded(info) => whole(response, recorded).await.and_then(|response| {
            let reread = if recorded == (Recorded::Read { is_reencoded: true }) { READ_AGAIN } else { 0 };
            let bytes = response::whole_json(&response).map_or(0, |text| text.len()).saturating_mul(reread);
            take_memory(bytes, recorded).map(|()| response)
        }),
        answer => answer,
    };
    match &answer {
        Err(status) => current::refused(status),
        Ok(response) => {
            let code = response.status().as_u16();
            match response::whole_json(response) {
                Some(text) if text.len() > LARGE => {
                    let noted = tokio::task::spawn_blocking(move || request.answered(code, &text)).await;
                    if let Err(error) = noted {
                        tracing::error!(%error, "an answer could not be recorded");
                    }
                }
                Some(text) => request.answered(code, &text),
                None => {}
            }
        }
    }
    answer
}

/// How many times its text an answer takes while another form is made of it.
const READ_AGAIN: usize = 4;
/// Bytes from which on an answer is recorded beside the tasks that others wait for.
const LARGE: usize = 256 << 10;

/// Whether the object that is answered is recorded. What has no end is not.
fn is_recorded(info: &RequestInfo) -> bool {
    current::records_response() && !subresource::is_long_running(info)
}

/// An answer with all of its body. Others go on between its pieces, each of which has its memory before it is kept.
async fn whole(response: Response, recorded: Recorded) -> Result<Response, Status> {
    if let Some(text) = response::whole_json(&response) {
        return take_memory(text.len(), recorded).map(|()| response);
    }
    let (parts, mut body) = response.into_parts();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::internal(format!("the answer cannot be made: {error}")))?;
        if let Ok(piece) = frame.into_data() {
            take_memory(piece.len(), recorded)?;
            text.extend_from_slice(&piece);
        }
        tokio::task::yield_now().await;
    }
    Ok(response::made_whole(parts, text.into()))
}

fn take_memory(bytes: usize, recorded: Recorded) -> Result<(), Status> {
    match current::grow_by(bytes) || recorded == Recorded::Write {
        true => Ok(()),
        false => Err(Status::too_many_requests(TOO_MANY, 1, "TooManyRequests", NO_MEMORY)),
    }
}

const TOO_MANY: &str = "Too many requests, please try again later.";
const NO_MEMORY: &str = "there is no memory to record the answer";
