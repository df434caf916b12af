//! HTTP answers: bodies in the encoding that the client takes, warnings, and every refusal as a Status.
//!
//! Handlers answer with JSON (or, where it has to be fast, with what the client takes), whose bytes go along with the
//! response until [`finish`]: it encodes what is still JSON, and compresses what is long.

use std::io::Write;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{Status, pretty::pretty, protobuf::answer};
use crate::request::{
    RequestInfo,
    accept::{Accepted, Encoding},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A body that is there whole, kept with its response so that it can still be encoded in another way.
#[derive(Clone)]
struct Whole(Bytes);

/// Shorter answers are not compressed. As in Kubernetes, and so is the level.
pub(super) const COMPRESS_FROM: usize = 128 << 10;
pub(super) const COMPRESSION: Compression = Compression::new(1);

/// An answer whose JSON text is ready.
pub fn json(code: StatusCode, body: impl Into<Bytes>) -> Response {
    encoded(code, Encoding::Json, body)
}

/// An answer whose bytes are ready in an encoding.
pub fn encoded(code: StatusCode, encoding: Encoding, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    let content_type = match encoding {
        Encoding::Json => JSON,
        other => HeaderValue::from_static(other.content_type()),
    };
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    set_body(&mut response, body.into());
    response
}

/// An answer whose bytes are made while it is sent. They go out as they are.
pub fn streamed<B>(code: StatusCode, encoding: Encoding, body: B) -> Response
where
    B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    let mut response = encoded(code, encoding, Bytes::new());
    response.extensions_mut().remove::<Whole>();
    response.map(|_| Body::new(body))
}

/// The JSON text of an answer that is there whole.
pub(super) fn whole_json(response: &Response) -> Option<Bytes> {
    let Whole(text) = response.extensions().get::<Whole>()?;
    (response.headers().get(header::CONTENT_TYPE) == Some(&JSON)).then(|| text.clone())
}

/// An answer whose body was made while it was sent, with all of that body.
pub(super) fn made_whole(parts: http::response::Parts, body: Bytes) -> Response {
    let mut response = Response::from_parts(parts, Body::empty());
    set_body(&mut response, body);
    response
}

fn set_body(response: &mut Response, body: Bytes) {
    *response.body_mut() = Body::from(body.clone());
    response.extensions_mut().insert(Whole(body));
}

/// Most characters of all warnings of an answer, and of each where they are more. Source:
/// `apiserver/pkg/endpoints/filters/warning.go`.
const MOST_WARNED: usize = 4096;
const MOST_OF_ONE: usize = 256;

/// Adds `Warning: 299 - "…"` headers (RFC 7234, section 5.5), which kubectl and client-go show to the user. Clients
/// refuse answers whose headers are too long: what is too much is cut off.
pub fn warn(mut response: Response, warnings: &[String]) -> Response {
    let lengths = warnings.iter().map(|warning| warning.chars().count());
    let most_of_one = if lengths.sum::<usize>() > MOST_WARNED { MOST_OF_ONE } else { MOST_WARNED };
    let mut left = MOST_WARNED;
    for warning in warnings {
        let length = warning.chars().count().min(most_of_one);
        if length > left {
            break;
        }
        left = left.saturating_sub(length);
        let quoted: String = warning
            .chars()
            .take(length)
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c if c.is_control() => vec![' '],
                c => vec![c],
            })
            .collect();
        if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// Puts an answer in the encoding that was negotiated, and compresses it if it is long and the client takes that. What
/// is streamed stays as it is.
pub async fn finish(mut response: Response, info: &RequestInfo, accepted: Accepted) -> Response {
    let Some(Whole(body)) = response.extensions().get::<Whole>().cloned() else { return response };
    let is_json = response.headers().get(header::CONTENT_TYPE) == Some(&JSON);
    if is_json && let Some((encoding, body)) = reencoded(&body, info, accepted) {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
        set_body(&mut response, body);
    }
    compress(response, info).await
}

/// The JSON text in the form that the client wants, if that is another.
fn reencoded(json: &Bytes, info: &RequestInfo, accepted: Accepted) -> Option<(Encoding, Bytes)> {
    let value = || serde_json::from_slice::<Value>(json).ok();
    match accepted.encoding {
        Encoding::Json if accepted.pretty || info.pretty => {
            let mut text = pretty(json);
            text.push(b'\n');
            Some((Encoding::Json, text.into()))
        }
        Encoding::Json => None,
        Encoding::Yaml => Some((Encoding::Yaml, serde_yaml::to_string(&value()?).ok()?.into())),
        // What has no protobuf form stays JSON, which whoever asks for protobuf reads as well.
        Encoding::Protobuf => Some((Encoding::Protobuf, answer::whole(json)?.into())),
    }
}

/// How many answers are compressed at a time. Each holds its text twice: any further one is sent as it is.
const COMPRESSED_AT_A_TIME: usize = 16;
static COMPRESSING: Semaphore = Semaphore::const_new(COMPRESSED_AT_A_TIME);

/// Compresses a long answer, if the client takes that.
pub async fn compress(response: Response, info: &RequestInfo) -> Response {
    compress_within(&COMPRESSING, response, info).await
}

async fn compress_within(permits: &Semaphore, mut response: Response, info: &RequestInfo) -> Response {
    let Some(Whole(body)) = response.extensions_mut().remove::<Whole>() else { return response };
    if !info.gzip || body.len() <= COMPRESS_FROM {
        return response;
    }
    let Ok(_permit) = permits.try_acquire() else { return response };
    // Long enough to keep others waiting.
    let compressed = tokio::task::spawn_blocking(move || {
        let mut out = GzEncoder::new(Vec::with_capacity(body.len() / 6), COMPRESSION);
        out.write_all(&body).and_then(|()| out.finish())
    });
    let Ok(Ok(compressed)) = compressed.await else { return response };
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response.map(|_| Body::from(compressed))
}

/// The answer to a path that leads nowhere, in Go's words.
pub fn page_not_found() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private")),
    ];
    (StatusCode::NOT_FOUND, headers, "404 page not found\n").into_response()
}

/// The answer that a refusal makes.
pub fn refusal(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, status.to_json().to_string());
    let retry = status.details.as_ref().and_then(|details| details["retryAfterSeconds"].as_u64());
    if let Some(seconds) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_answers_are_compressed_at_a_time() {
        let (mut parts, ()) = http::Request::get("/api").body(()).unwrap().into_parts();
        parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let info = RequestInfo::of(&parts).unwrap();
        let long = || json(StatusCode::OK, "x".repeat(COMPRESS_FROM + 1));
        let is_gzip = |response: &Response| response.headers().contains_key(header::CONTENT_ENCODING);
        let permits = Semaphore::new(1);
        let taken = permits.acquire().await.unwrap();
        assert!(!is_gzip(&compress_within(&permits, long(), &info).await));
        drop(taken);
        assert!(is_gzip(&compress_within(&permits, long(), &info).await));
    }

    #[test]
    fn warnings_never_make_headers_too_long() {
        let told = |warnings: &[String]| -> Vec<usize> {
            let response = warn(json(StatusCode::OK, String::new()), warnings);
            response.headers().get_all(header::WARNING).iter().map(|value| value.len()).collect()
        };
        let frame = "299 - \"\"".len();
        assert_eq!(told(&["x".repeat(1000)]), [1000 + frame]);
        assert_eq!(told(&["x".repeat(5000)]), [MOST_OF_ONE + frame]);
        assert_eq!(told(&vec!["x".repeat(300); 50]).len(), MOST_WARNED / MOST_OF_ONE);
    }
}
