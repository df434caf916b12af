//! A log over a WebSocket: each piece is one message. What the client sends is passed over.
//!
//! Source: `wsstream.Reader` of apimachinery.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{auth::stream_limit::CountedStream, proxy_headers, request::ConnectionPermit, upgrade::switched};

/// How long a client may take to close its side after the log's end.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// Of what a client may send, which nobody reads.
const LARGEST_MESSAGE: usize = 4096;
/// The only version of WebSockets (RFC 6455, section 4.1).
const VERSION: &str = "13";

/// A request for a log over a WebSocket that can be granted.
pub struct Handshake {
    client: OnUpgrade,
    permit: Option<ConnectionPermit>,
    protocol: Protocol,
    accept: String,
}

/// Why one cannot be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// None of the protocols that the client names is spoken.
    Protocol,
    /// There is no `Sec-WebSocket-Key`.
    NoKey,
    /// `Sec-WebSocket-Version` is missing, or another than 13. Worded as `golang.org/x/net/websocket`.
    Version,
}

impl IntoResponse for HandshakeError {
    fn into_response(self) -> Response {
        let version = [(header::SEC_WEBSOCKET_VERSION, VERSION)];
        match self {
            Self::Protocol => (StatusCode::FORBIDDEN, "requested protocol(s) are not supported").into_response(),
            Self::NoKey => (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing").into_response(),
            Self::Version => (StatusCode::BAD_REQUEST, version, "missing or bad WebSocket Version").into_response(),
        }
    }
}

impl Handshake {
    /// Of a request; nothing where it does not ask for a WebSocket.
    pub fn of(request: Request<Body>) -> Result<Option<Self>, HandshakeError> {
        let (mut parts, _) = request.into_parts();
        let asked = proxy_headers::upgrade(&parts.headers);
        let is_websocket = asked.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let client = if is_websocket { parts.extensions.remove::<OnUpgrade>() } else { None };
        let Some(client) = client else { return Ok(None) };
        let (protocol, accept) = granted(&parts.headers)?;
        Ok(Some(Self { client, permit: parts.extensions.remove(), protocol, accept }))
    }

    /// Sends `log` once the client has switched. `counted` is dropped when it has ended.
    pub fn answer(self, log: Body, counted: CountedStream) -> Response {
        let mut answer = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        // Base64 is what a header can have.
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if !self.protocol.name.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol.name));
        }
        switched(answer, (counted, self.permit), send(self.client, log, self.protocol.base64))
    }
}

/// What is spoken then, and the key of the answer (RFC 6455, section 4.2.2).
fn granted(headers: &HeaderMap) -> Result<(Protocol, String), HandshakeError> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(HandshakeError::NoKey)?;
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(HandshakeError::Version);
    }
    let protocol = chosen(headers).ok_or(HandshakeError::Protocol)?;
    Ok((protocol, derive_accept_key(key.as_bytes())))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protocol {
    name: &'static str,
    base64: bool,
}

const PROTOCOLS: [Protocol; 3] = [
    Protocol { name: "binary.k8s.io", base64: false },
    Protocol { name: "base64.binary.k8s.io", base64: true },
    Protocol { name: "", base64: false },
];

/// The first protocol that the client names and that is spoken; the last of them, where it names none.
fn chosen(headers: &HeaderMap) -> Option<Protocol> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let mut asked = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty()).peekable();
    if asked.peek().is_none() {
        return PROTOCOLS.last().copied();
    }
    asked.find_map(|asked| PROTOCOLS.into_iter().find(|protocol| protocol.name == asked))
}

/// Sends all of `log`, unless the client closes before its end.
async fn send(client: OnUpgrade, log: Body, base64: bool) {
    let upgraded = match client.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "a client of a log did not switch protocols"),
    };
    let config =
        WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE)).max_frame_size(Some(LARGEST_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (mut to, mut from) = socket.split();
    let sending = async {
        // As in Kubernetes, an empty message says that the connection stands.
        let mut pieces = futures::stream::iter([Ok(bytes::Bytes::new())]).chain(log.into_data_stream());
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    tracing::debug!(%error, "a log broke off");
                    break;
                }
            };
            let message = if base64 { Message::text(BASE64_STANDARD.encode(&piece)) } else { Message::binary(piece) };
            if to.send(message).await.is_err() {
                return;
            }
        }
        // Who is gone needs no end.
        to.close().await.ok();
    };
    // Ends with the client, which answers the end of the log, too.
    let mut closed = std::pin::pin!(async { while let Some(Ok(_)) = from.next().await {} });
    tokio::select! {
        () = sending => {}
        () = &mut closed => return,
    }
    if tokio::time::timeout(CLOSED_WITHIN, closed).await.is_err() {
        tracing::debug!("a client of a log did not close its connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_of_another_version_is_refused_and_told_which_is_spoken() {
        let granted = |version: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
            headers.extend(version.map(|v| (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(v))));
            granted(&headers).map(|(_, accept)| accept)
        };
        assert_eq!(granted(Some("13")).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for version in [None, Some("8"), Some("")] {
            assert_eq!(granted(version), Err(HandshakeError::Version));
        }
        let refusal = HandshakeError::Version.into_response();
        assert_eq!(
            (refusal.status().as_u16(), &refusal.headers()[header::SEC_WEBSOCKET_VERSION]),
            (400, &HeaderValue::from_static(VERSION))
        );
    }

    #[test]
    fn the_first_protocol_that_is_spoken_is_chosen() {
        let chosen = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line)));
            let mut headers = HeaderMap::new();
            headers.extend(lines);
            chosen(&headers).map(|protocol| protocol.name)
        };
        assert_eq!(chosen(&[]), Some(""));
        assert_eq!(chosen(&["x, base64.binary.k8s.io"]), Some("base64.binary.k8s.io"));
        assert_eq!(chosen(&["binary.k8s.io,base64.binary.k8s.io"]), Some("binary.k8s.io"));
        assert_eq!(chosen(&["v4.channel.k8s.io"]), None);
    }
}
