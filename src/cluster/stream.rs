//! A WebSocket to the API: exec, attach and port-forward.

use anyhow::Context;
use http::{Request, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::Role,
    },
};

use super::{ApiError, Cluster};

/// A connection that carries messages.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Cluster {
    /// Asks `path` to become a WebSocket that speaks `protocol`.
    pub async fn open_socket(&self, path: &str, protocol: &str) -> anyhow::Result<Socket> {
        self.negotiate_socket(path, &[protocol]).await.map(|(socket, _)| socket)
    }

    /// Asks `path` to become a WebSocket that speaks one of `protocols`, of which the server chooses: by custom the
    /// first one that it knows.
    pub async fn negotiate_socket<'a>(&self, path: &str, protocols: &[&'a str]) -> anyhow::Result<(Socket, &'a str)> {
        let key = generate_key();
        let asked = protocols.join(", ");
        let request = Request::get(path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_PROTOCOL, &asked)
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let request = request.body(Body::empty()).context("cannot form the request")?;
        let response = self.answer(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let code = response.status().as_u16();
            let bytes = response.into_body().collect_bytes().await.context("the answer broke off")?;
            return Err(ApiError::from_body(code, &bytes).into());
        }
        let said = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if said(header::SEC_WEBSOCKET_ACCEPT) != Some(&derive_accept_key(key.as_bytes())) {
            anyhow::bail!("the server's answer is no WebSocket's");
        }
        let chosen = said(header::SEC_WEBSOCKET_PROTOCOL);
        let Some(protocol) = protocols.iter().copied().find(|protocol| chosen == Some(*protocol)) else {
            anyhow::bail!("the server does not speak {asked}");
        };
        let upgraded = hyper::upgrade::on(response).await.context("the connection broke off")?;
        Ok((WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await, protocol))
    }
}
