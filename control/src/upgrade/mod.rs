//! Requests after which a connection speaks another protocol, passed on to another server: from its answer 101 on,
//! bytes go both ways as they come.

mod answer;
mod splice;

pub use answer::{UpgradedAnswer, switched};
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use crate::{proxy_headers, request::ConnectionPermit};

/// What a request holds that the answer of the server it is passed on to needs.
pub struct PassedOn {
    /// The protocol that the client asks for; none where it asks for no other.
    pub protocol: Option<HeaderValue>,
    client: Option<OnUpgrade>,
    permit: Option<ConnectionPermit>,
}

/// Why a request or its answer cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// The client asks for another protocol over a connection that cannot switch, such as one of HTTP/2.
    #[error("request connection cannot be hijacked")]
    NoConnection,
    /// The server did not switch where it was asked to, or did where it was not. Holds its status code.
    #[error("invalid upgrade response: status code {0}")]
    Unexpected(u16),
}

impl PassedOn {
    /// Takes it out of a request, before the headers are changed.
    ///
    /// # Errors
    /// [`UpgradeError::NoConnection`].
    pub fn take(parts: &mut Parts) -> Result<Self, UpgradeError> {
        let client = parts.extensions.remove::<OnUpgrade>();
        let permit = parts.extensions.remove::<ConnectionPermit>();
        let protocol = proxy_headers::upgrade(&parts.headers);
        match protocol.is_some() && client.is_none() {
            true => Err(UpgradeError::NoConnection),
            false => Ok(Self { protocol, client, permit }),
        }
    }

    /// The server's `answer` as the client gets it. One that switches protocols joins both connections; `held` is
    /// dropped when they end, or at once where nothing is switched.
    ///
    /// # Errors
    /// [`UpgradeError::Unexpected`].
    pub fn answer(
        self,
        mut answer: Response<Incoming>,
        held: impl Send + 'static,
    ) -> Result<Response<Body>, UpgradeError> {
        let code = answer.status();
        let switches = code == StatusCode::SWITCHING_PROTOCOLS;
        if switches != self.protocol.is_some() && (switches || code.as_u16() < 400) {
            return Err(UpgradeError::Unexpected(code.as_u16()));
        }
        proxy_headers::to_client(answer.headers_mut(), switches);
        *answer.version_mut() = http::Version::default();
        Ok(match self.client {
            Some(client) if switches => {
                let server = hyper::upgrade::on(&mut answer);
                switched(answer, (held, self.permit), splice::splice(client, server))
            }
            _ => answer.map(Body::new),
        })
    }
}
