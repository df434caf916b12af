//! Sends a request on to an extension API server, and streams the answer back.
//!
//! Whether the client may ask was settled before. Texts of failures are kube-aggregator's; they are plain text, as
//! there.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body::{Body as HttpBody, Frame};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, Sleep};

use super::{Aggregator, backend::Backend};
use crate::{
    auth::stream_limit::CountedStream,
    deadline::REQUEST_TIMEOUT,
    flow_control::seat::Seat,
    later::later,
    proxy_headers,
    request::{PeerAddress, RequestInfo, path::RequestPath},
    status::Status,
    upgrade::{PassedOn, UpgradeError},
    webhook,
};

/// What discovery may take, which all clients wait for. Source: `aggregatedDiscoveryTimeout`.
const LONGEST_DISCOVERY: Duration = Duration::from_secs(5);

/// Why a request was not answered by its server.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// It is not available, or its Service leads nowhere.
    #[error("service unavailable")]
    Unavailable,
    /// The APIService does not say how to trust its server.
    #[error("{0}")]
    Trust(#[from] webhook::ConfigError),
    /// The request cannot be sent as it is.
    #[error("{0}")]
    Malformed(&'static str),
    /// No connection, no trust, or the connection broke.
    #[error("error trying to reach service: {0}")]
    Unreachable(String),
    /// It wants another address to be asked.
    #[error("the backend attempted to redirect this request, which is not permitted")]
    Redirect,
    /// The client or the server does not switch protocols.
    #[error("{0}")]
    Upgrade(#[from] UpgradeError),
}

impl ForwardError {
    fn code(&self) -> StatusCode {
        match self {
            Self::Unavailable | Self::Unreachable(_) | Self::Upgrade(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Trust(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Redirect => StatusCode::BAD_GATEWAY,
        }
    }

    /// As Go's `http.Error` answers.
    fn response(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        (self.code(), headers, format!("{self}\n")).into_response()
    }
}

impl Aggregator {
    /// Answers a request by the server of `backend`.
    pub async fn forward(
        &self,
        backend: &Backend,
        info: &RequestInfo,
        long_running: bool,
        request: Request<Body>,
    ) -> Result<Response, Status> {
        if !backend.available {
            return Ok(ForwardError::Unavailable.response());
        }
        let is_discovery = matches!(&info.path, RequestPath::Other(path) if path.as_str().starts_with("/apis/"));
        // The server may take as long as it likes to begin, and a watch has no time: it would keep its seats from
        // others (kubernetes/kubernetes#105511).
        if long_running && let Some(seat) = request.extensions().get::<Arc<Seat>>() {
            seat.give_back();
        }
        // One that asks for another protocol has as long as others until that is agreed on: it has no body then.
        let until = (!long_running)
            .then(|| later(Instant::now(), if is_discovery { LONGEST_DISCOVERY } else { REQUEST_TIMEOUT }));
        let counted = match proxy_headers::upgrade(request.headers()) {
            Some(_) => Some(self.inner.streams.admit(&info.user()?.name)?),
            None => None,
        };
        let answer = self.answer(backend, info, request, counted);
        let answer = match until {
            None => answer.await,
            Some(until) => match tokio::time::timeout_at(until, answer).await {
                Ok(answer) => answer,
                Err(_) if is_discovery => Err(ForwardError::Unreachable("context deadline exceeded".to_owned())),
                Err(_) => return Err(Status::timeout("request did not complete within the allotted timeout")),
            },
        };
        match answer {
            Ok(response) => Ok(match until {
                Some(until) => response.map(|body| Body::new(TimedBody::new(body, until))),
                None => response,
            }),
            Err(error) => {
                tracing::debug!(name = backend.name, %error, "a request was not answered by its extension server");
                Ok(error.response())
            }
        }
    }

    async fn answer(
        &self,
        backend: &Backend,
        info: &RequestInfo,
        request: Request<Body>,
        counted: Option<CountedStream>,
    ) -> Result<Response, ForwardError> {
        let user = info.user.as_ref().ok_or(ForwardError::Malformed("missing user"))?;
        let path = checked_path(request.uri().path())?.to_owned();
        let (mut parts, body) = request.into_parts();
        let passed_on = PassedOn::take(&mut parts)?;
        let peer: Option<SocketAddr> = parts.extensions.get::<PeerAddress>().map(|peer| peer.0);
        let to = self.address(backend)?;
        proxy_headers::to_backend(&mut parts.headers, user, peer, &path, &to)
            .map_err(|_| ForwardError::Malformed("the user's name cannot be sent on"))?;
        let mut sent = Request::builder().method(parts.method).uri(uri(&to, &path, &info.query.parameters)?);
        if let Some(headers) = sent.headers_mut() {
            *headers = parts.headers;
            let host = HeaderValue::try_from(to).map_err(|_| ForwardError::Unavailable)?;
            headers.insert(header::HOST, host);
        }
        let sent = sent.body(body).map_err(|_| ForwardError::Malformed("the request cannot be sent on"))?;
        let received = backend.http().map_err(Clone::clone)?.request(sent).await;
        let response = received.map_err(|error| {
            webhook::note_certificate(&error, &backend.target.authority());
            ForwardError::Unreachable(webhook::cause(&error))
        })?;
        let code = response.status();
        if code.is_redirection() && response.headers().contains_key(header::LOCATION) {
            return Err(ForwardError::Redirect);
        }
        Ok(passed_on.answer(response, counted)?)
    }

    /// Address and port of a ready endpoint.
    pub(super) fn address(&self, backend: &Backend) -> Result<String, ForwardError> {
        let found = backend.target.address(&self.store().snapshot());
        let address = found.map_err(|error| {
            tracing::debug!(name = backend.name, %error, "an extension server has no address");
            ForwardError::Unavailable
        })?;
        Ok(address.to_string())
    }
}

/// The path as it was sent, unless a part of it leads elsewhere than what was authorised: `..` behind a subresource.
fn checked_path(path: &str) -> Result<&str, ForwardError> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    match decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | "..")) {
        true => Err(ForwardError::Malformed("the path may not contain \".\" or \"..\"")),
        false => Ok(path),
    }
}

/// The query is written anew from what was read of it: both servers then read the same.
fn uri(to: &str, path: &str, parameters: &[(String, String)]) -> Result<Uri, ForwardError> {
    let mut text = format!("https://{to}{path}");
    if !parameters.is_empty() {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        text.push('?');
        text.push_str(&query);
    }
    text.parse().map_err(|_| ForwardError::Malformed("the path cannot be sent on"))
}

/// A body that breaks off at a time.
struct TimedBody {
    inner: Body,
    over: Pin<Box<Sleep>>,
}

impl TimedBody {
    fn new(inner: Body, until: Instant) -> Self {
        Self { inner, over: Box::pin(tokio::time::sleep_until(until)) }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_nowhere_else() {
        for path in ["/apis/g/v1/as/a/proxy/../b", "/apis/g/v1/as/a/proxy/%2e%2E/b", "/apis/g/v1/as/a/proxy/x%2f..%2fb"]
        {
            assert!(checked_path(path).is_err(), "{path}");
        }
        assert_eq!(checked_path("/apis/g/v1/as/a/proxy/x%2fy").unwrap(), "/apis/g/v1/as/a/proxy/x%2fy");
        assert!(checked_path("/apis/g/v1/as/a..b").is_ok());
    }

    #[test]
    fn a_query_is_read_the_same_on_both_sides() {
        let pairs = [("fieldSelector", "a=b;c"), ("watch", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let uri = uri("10.0.0.1:443", "/apis/g/v1/as", &pairs).unwrap();
        assert_eq!(uri.to_string(), "https://10.0.0.1:443/apis/g/v1/as?fieldSelector=a%3Db%3Bc&watch=1");
    }
}
