//! What a request wants to speak from then on, and the answer 101 to it. Pure, but for the upgrade itself.
//!
//! Sources: RFC 6455, section 4.2; `wsstream.Conn`, `httpstream.Handshake` and `remotecommand` of Kubernetes.

use std::fmt;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::TryFutureExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::tunnel;

/// Protocols over SPDY that the client can speak, in its order of preference; in the answer, the one that is spoken.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// In a refusal, those that this side can speak.
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");

/// What can be spoken about one thing: exec and attach, or port-forward.
pub trait Protocol: Copy + 'static {
    /// Those over WebSockets, by their names; the empty one is for clients that name none.
    const OVER_WEBSOCKET: &'static [(&'static str, Self)];
    /// Those over SPDY.
    const OVER_SPDY: &'static [(&'static str, Self)];
}

/// How a client of exec or attach speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandProtocol {
    /// One message per piece, which begins with its channel's number.
    WebSocket(ChannelProtocol),
    /// A SPDY stream for each of stdin, stdout, stderr, error and resize. From version 4 on the end is a Status,
    /// and text before.
    Spdy {
        /// 1 to 4.
        version: u8,
    },
}

/// A protocol of channels over a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelProtocol {
    /// 1, 4 or 5. From version 4 on the end is told as a Status, and before as text; from 5 on input can be closed.
    pub version: u8,
    /// Messages are text: the channel as a digit, then base64.
    pub base64: bool,
}

impl CommandProtocol {
    const fn channels(version: u8, base64: bool) -> Self {
        Self::WebSocket(ChannelProtocol { version, base64 })
    }

    /// Whether a failure is told once the connection is made. kube-apiserver does so where it translates: in version 5.
    pub fn tells_errors_on_a_channel(self) -> bool {
        matches!(self, Self::WebSocket(ChannelProtocol { version: 5, .. }))
    }
}

impl Protocol for CommandProtocol {
    const OVER_WEBSOCKET: &'static [(&'static str, Self)] = &[
        ("v5.channel.k8s.io", Self::channels(5, false)),
        ("v4.channel.k8s.io", Self::channels(4, false)),
        ("v4.base64.channel.k8s.io", Self::channels(4, true)),
        ("channel.k8s.io", Self::channels(1, false)),
        ("base64.channel.k8s.io", Self::channels(1, true)),
        ("", Self::channels(1, false)),
    ];
    const OVER_SPDY: &'static [(&'static str, Self)] = &[
        ("v4.channel.k8s.io", Self::Spdy { version: 4 }),
        ("v3.channel.k8s.io", Self::Spdy { version: 3 }),
        ("v2.channel.k8s.io", Self::Spdy { version: 2 }),
        ("channel.k8s.io", Self::Spdy { version: 1 }),
    ];
}

/// How a client of port-forward speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortProtocol {
    /// Two channels per port of the request; in base64 if so.
    WebSocket {
        /// Messages are text: the channel as a character, then base64.
        base64: bool,
    },
    /// SPDY in the messages of a WebSocket.
    Tunnel,
    /// SPDY.
    Spdy,
}

impl Protocol for PortProtocol {
    const OVER_WEBSOCKET: &'static [(&'static str, Self)] = &[
        (tunnel::PORT_FORWARD, Self::Tunnel),
        ("v4.channel.k8s.io", Self::WebSocket { base64: false }),
        ("v4.base64.channel.k8s.io", Self::WebSocket { base64: true }),
        ("", Self::WebSocket { base64: false }),
    ];
    const OVER_SPDY: &'static [(&'static str, Self)] = &[("portforward.k8s.io", Self::Spdy)];
}

/// A request to switch protocols that can be granted.
#[derive(Clone, Debug)]
pub struct Handshake<P> {
    name: &'static str,
    protocol: P,
    answer: Answer,
}

#[derive(Clone, Debug)]
enum Answer {
    WebSocket { accept: String },
    Spdy,
}

/// Why a request cannot be granted. Worded as Kubernetes' own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not ask to switch protocols, or not to one that is spoken here.
    #[error("Upgrade request required")]
    NoUpgrade,
    /// It is no handshake of a WebSocket.
    #[error("bad request: {0}")]
    BadWebSocket(&'static str),
    /// None of its WebSocket protocols is spoken here.
    #[error("requested protocol(s) are not supported: [{0}]")]
    WebSocketProtocol(String),
    /// SPDY alone says nothing of what is sent over it.
    #[error("unable to upgrade: header X-Stream-Protocol-Version does not exist in request")]
    NoStreamProtocol,
    /// None of its protocols over SPDY is spoken here.
    #[error("unable to upgrade: unable to negotiate protocol: client supports [{asked}], server accepts [{accepted}]")]
    StreamProtocol { asked: String, accepted: String },
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = self.to_string();
        match self {
            Self::StreamProtocol { accepted, .. } => {
                let mut response = (StatusCode::FORBIDDEN, text).into_response();
                for accepted in accepted.split(' ').filter_map(|name| HeaderValue::from_str(name).ok()) {
                    response.headers_mut().append(ACCEPTED_PROTOCOLS, accepted);
                }
                response
            }
            Self::WebSocketProtocol(_) => (StatusCode::FORBIDDEN, text).into_response(),
            _ => (StatusCode::BAD_REQUEST, text).into_response(),
        }
    }
}

impl<P: Protocol + fmt::Debug> Handshake<P> {
    /// Reads what a request asks for.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let upgrade = headers.get(header::UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
        if !listed(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
            return Err(Refusal::NoUpgrade);
        }
        if upgrade.eq_ignore_ascii_case(WEBSOCKET.as_bytes()) {
            return Self::of_websocket(headers);
        }
        if upgrade.eq_ignore_ascii_case(SPDY.as_bytes()) {
            return Self::of_spdy(headers);
        }
        Err(Refusal::NoUpgrade)
    }

    fn of_websocket(headers: &HeaderMap) -> Result<Self, Refusal> {
        if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&HeaderValue::from_static("13")) {
            return Err(Refusal::BadWebSocket("Sec-WebSocket-Version is not 13"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let key = key.ok_or(Refusal::BadWebSocket("Sec-WebSocket-Key is missing"))?;
        let asked: Vec<&str> = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL).collect();
        let unnamed = [""];
        let (name, protocol) = negotiate(if asked.is_empty() { &unnamed } else { &asked }, P::OVER_WEBSOCKET)
            .ok_or_else(|| Refusal::WebSocketProtocol(asked.join(" ")))?;
        Ok(Self { name, protocol, answer: Answer::WebSocket { accept: derive_accept_key(key) } })
    }

    fn of_spdy(headers: &HeaderMap) -> Result<Self, Refusal> {
        let asked: Vec<&str> = listed(headers, &STREAM_PROTOCOL).collect();
        if asked.is_empty() {
            return Err(Refusal::NoStreamProtocol);
        }
        let (name, protocol) = negotiate(&asked, P::OVER_SPDY).ok_or_else(|| {
            let accepted: Vec<&str> = P::OVER_SPDY.iter().map(|(name, _)| *name).collect();
            Refusal::StreamProtocol { asked: asked.join(" "), accepted: accepted.join(" ") }
        })?;
        Ok(Self { name, protocol, answer: Answer::Spdy })
    }

    /// What will be spoken.
    pub fn protocol(&self) -> P {
        self.protocol
    }

    /// The answer, and the connection once that was sent.
    pub fn accept(
        &self,
        request: Request,
    ) -> (Response, impl Future<Output = Result<TokioIo<Upgraded>, hyper::Error>> + Send + use<P>) {
        let mut response = (StatusCode::SWITCHING_PROTOCOLS, Body::empty()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let name = HeaderValue::from_static(self.name);
        match &self.answer {
            Answer::Spdy => {
                headers.insert(header::UPGRADE, SPDY);
                headers.insert(STREAM_PROTOCOL, name);
            }
            Answer::WebSocket { accept } => {
                headers.insert(header::UPGRADE, WEBSOCKET);
                // Base64 is what a header can have.
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                }
                if !self.name.is_empty() {
                    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
                }
            }
        }
        (response, hyper::upgrade::on(request).map_ok(TokioIo::new))
    }
}

/// The first of what the client asks for that is spoken here.
fn negotiate<P: Copy>(asked: &[&str], spoken: &[(&'static str, P)]) -> Option<(&'static str, P)> {
    asked.iter().find_map(|asked| spoken.iter().find(|(name, _)| name == asked).copied())
}

/// The values of a header that is a list, over all its lines.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(lines: &[(&'static str, &'static str)]) -> Result<Handshake<CommandProtocol>, Refusal> {
        Handshake::of(&lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    const WEBSOCKET: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn websocket(protocols: &'static str) -> Result<Handshake<CommandProtocol>, Refusal> {
        handshake(&[&WEBSOCKET[..], &[("sec-websocket-protocol", protocols)]].concat())
    }

    fn spdy(protocols: &'static str) -> Result<Handshake<CommandProtocol>, Refusal> {
        handshake(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocols)])
    }

    #[test]
    fn the_first_protocol_that_both_speak_is_chosen() {
        let channels = CommandProtocol::channels;
        assert_eq!(
            websocket("v9.channel.k8s.io, v4.channel.k8s.io,v5.channel.k8s.io").unwrap().protocol,
            channels(4, false)
        );
        assert_eq!(websocket("v5.channel.k8s.io").unwrap().protocol, channels(5, false));
        assert_eq!(websocket("base64.channel.k8s.io").unwrap().protocol, channels(1, true));
        assert_eq!(handshake(&WEBSOCKET).unwrap().protocol, channels(1, false));
        assert_eq!(
            spdy("v5.channel.k8s.io, v4.channel.k8s.io").unwrap().protocol,
            CommandProtocol::Spdy { version: 4 }
        );
        assert_eq!(spdy("channel.k8s.io").unwrap().protocol, CommandProtocol::Spdy { version: 1 });
    }

    #[test]
    fn the_answer_to_a_websocket_is_that_of_the_rfc() {
        let (response, _) = websocket("v5.channel.k8s.io").unwrap().accept(Request::new(Body::empty()));
        let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(response.status(), 101);
        assert_eq!(header(header::SEC_WEBSOCKET_ACCEPT), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(header(header::SEC_WEBSOCKET_PROTOCOL), "v5.channel.k8s.io");
        let (response, _) = handshake(&WEBSOCKET).unwrap().accept(Request::new(Body::empty()));
        assert!(!response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn what_cannot_be_granted_is_refused_with_kubernetes_words() {
        let code = |refusal: Refusal| refusal.into_response().status().as_u16();
        let refused = spdy("v9.channel.k8s.io").unwrap_err();
        let words = "unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], server \
            accepts [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]";
        assert_eq!(refused.to_string(), words);
        assert_eq!(refused.clone().into_response().headers().get_all(ACCEPTED_PROTOCOLS).iter().count(), 4);
        assert_eq!(code(refused), 403);
        assert_eq!(code(websocket("v9.channel.k8s.io").unwrap_err()), 403);
        let upgrade = [("upgrade", "websocket")];
        for lines in [&[][..], &[("connection", "upgrade")], &upgrade, &[("connection", "upgrade"), ("upgrade", "h2c")]]
        {
            assert_eq!(handshake(lines).unwrap_err(), Refusal::NoUpgrade);
        }
        assert_eq!(code(handshake(&WEBSOCKET[..3]).unwrap_err()), 400);
        assert_eq!(code(handshake(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]).unwrap_err()), 400);
    }
}
