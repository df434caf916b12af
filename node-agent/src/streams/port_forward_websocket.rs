//! Port-forward over channels of a WebSocket: two per port of the request, one for its bytes and one for errors, and
//! one connection to each port.
//!
//! Source: `handleWebSocketStreams` of `k8s.io/kubelet/pkg/cri/streaming/portforward`.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{FuturesUnordered, SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::{
    port_forward::{Forwarding, ToClient},
    spdy::Gone,
    websocket_wire::{message, server},
};

/// Messages that wait for a connection to take them, and for the client.
const QUEUED: usize = 2;
/// Ports of a request: a channel's number is a byte.
const MOST_PORTS: usize = 100;

/// Why the ports of a request cannot be read. Worded as the kubelet's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// There is none.
    #[error("query parameter \"port\" is required")]
    Missing,
    /// It is empty.
    #[error("query parameter \"port\" cannot be empty")]
    Empty,
    /// It is no number up to 65535.
    #[error("unable to parse {0:?} as a port")]
    NoNumber(String),
    /// It is 0.
    #[error("port {0:?} must be > 0")]
    Zero(String),
    /// A channel's number is a byte.
    #[error("more than {MOST_PORTS} ports")]
    TooMany,
}

/// The ports of a request: each value may be a list.
pub fn ports(query: &str) -> Result<Vec<u16>, PortError> {
    let mut ports = Vec::new();
    for (_, value) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "port") {
        if value.is_empty() {
            return Err(PortError::Empty);
        }
        for part in value.split(',') {
            match part.parse() {
                Ok(0) => return Err(PortError::Zero(part.to_owned())),
                Ok(port) => ports.push(port),
                Err(_) => return Err(PortError::NoNumber(value.into_owned())),
            }
        }
    }
    match ports.len() {
        0 => Err(PortError::Missing),
        count if count > MOST_PORTS => Err(PortError::TooMany),
        _ => Ok(ports),
    }
}

/// Serves a client until it is gone, or all its connections have ended.
pub async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    base64: bool,
    ports: &[u16],
    to: &Forwarding,
) {
    let (to_client, from_client) = server(io).await.split();
    let (messages, to_write) = mpsc::channel(QUEUED);
    let (mut inputs, connections) = (Vec::new(), FuturesUnordered::new());
    for (number, port) in (0u8..).step_by(2).zip(ports) {
        let (input, from_client) = mpsc::channel(QUEUED);
        inputs.push(Some(input));
        let channel = |number| Channel { number, base64, messages: messages.clone() };
        let (data, error) = (channel(number), channel(number.saturating_add(1)));
        connections.push(async move {
            let begun = Bytes::copy_from_slice(&port.to_le_bytes());
            if data.write(begun.clone()).await.is_err() || error.write(begun).await.is_err() {
                return;
            }
            if let Err(why) = to.forward(*port, ReceiverStream::new(from_client), &data).await {
                // A client that is gone needs no reason.
                error.write(why.into()).await.ok();
            }
        });
    }
    drop(messages);
    let forwarding = async {
        tokio::join!(connections.collect::<()>(), write(to_client, to_write));
    };
    tokio::select! {
        () = read(from_client, base64, inputs) => {}
        () = forwarding => {}
    }
}

/// Gives each connection what comes on its channel.
async fn read<I: AsyncRead + AsyncWrite + Unpin>(
    mut from: SplitStream<WebSocketStream<I>>,
    base64: bool,
    mut inputs: Vec<Option<mpsc::Sender<Bytes>>>,
) {
    while let Some(message) = from.next().await {
        let mut message = match message {
            Ok(Message::Binary(message)) if !base64 && !message.is_empty() => message,
            Ok(Message::Text(message)) if base64 && !message.is_empty() => message.into(),
            Ok(_) => continue,
            Err(error) => return tracing::debug!(%error, "a WebSocket to ports ended early"),
        };
        let first = message.split_to(1)[0];
        let (number, bytes) = match base64 {
            false => (first, message),
            true => match BASE64_STANDARD.decode(&message) {
                Ok(bytes) => (first.wrapping_sub(b'0'), bytes.into()),
                Err(_) => continue,
            },
        };
        // Odd channels are for errors: nothing is read from them.
        let input = inputs.get_mut(usize::from(number / 2)).filter(|_| number.is_multiple_of(2));
        if let Some(slot @ Some(_)) = input
            && let Some(input) = slot
            && input.send(bytes).await.is_err()
        {
            *slot = None;
        }
    }
}

/// Writes messages until no connection has any more, and closes.
async fn write<I: AsyncRead + AsyncWrite + Unpin>(
    mut to: SplitSink<WebSocketStream<I>, Message>,
    mut messages: mpsc::Receiver<Message>,
) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = to.send(message).await {
            return tracing::debug!(%error, "a WebSocket to ports broke off");
        }
    }
    if let Err(error) = to.close().await {
        tracing::debug!(%error, "a WebSocket to ports could not be closed");
    }
}

struct Channel {
    number: u8,
    base64: bool,
    messages: mpsc::Sender<Message>,
}

#[async_trait::async_trait]
impl ToClient for Channel {
    async fn write(&self, bytes: Bytes) -> Result<(), Gone> {
        self.messages.send(message(self.base64, self.number, &bytes)).await.map_err(|_| Gone)
    }

    /// There is no message for it: the client sees the end of the connection.
    async fn finish(&self) -> Result<(), Gone> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_lists_and_refused_with_the_kubelets_words() {
        assert_eq!(ports("port=80,443&port=8080"), Ok(vec![80, 443, 8080]));
        assert_eq!(ports("").unwrap_err().to_string(), "query parameter \"port\" is required");
        assert_eq!(ports("port=").unwrap_err(), PortError::Empty);
        assert_eq!(ports("port=80,0").unwrap_err().to_string(), "port \"0\" must be > 0");
        for wrong in ["port=http", "port=70000", "port=80,"] {
            assert!(matches!(ports(wrong), Err(PortError::NoNumber(_))), "{wrong}");
        }
        assert_eq!(ports(&format!("port={}", ["1"; 101].join(","))), Err(PortError::TooMany));
    }
}
