//! Port-forward over channels of a WebSocket: two per port of the request, one for its bytes and one for errors, and
//! one connection to each port.
//!
//! Source: `handleWebSocketStreams` of `k8s.io/kubelet/pkg/cri/streaming/portforward`.

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{FuturesUnordered, SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::Interval,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use super::{
    idle::heartbeats,
    port_forward::{Forwarding, ToClient},
    spdy::Gone,
    websocket_wire::{LARGEST_TO_PORTS, QUEUED_PARTS, channel_of, message, send_in_parts, server},
};

/// Messages that wait for the client.
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
    let (to_client, from_client) = server(io, LARGEST_TO_PORTS).await.split();
    let (messages, to_write) = mpsc::channel(QUEUED);
    let (mut inputs, connections) = (Vec::new(), FuturesUnordered::new());
    for (number, port) in (0u8..).step_by(2).zip(ports) {
        let (input, from_client) = mpsc::channel(QUEUED_PARTS);
        inputs.push(Some(input));
        let ended = CancellationToken::new();
        let channel = |number| Channel { number, base64, messages: messages.clone(), ended: ended.clone() };
        let (data, error) = (channel(number), channel(number.saturating_add(1)));
        connections.push(async move {
            let begun = Bytes::copy_from_slice(&port.to_le_bytes());
            if data.write(begun.clone()).await.is_err() || error.write(begun).await.is_err() {
                return;
            }
            let from_client = ReceiverStream::new(from_client).take_until(Box::pin(ended.cancelled_owned()));
            if let Err(refused) = to.forward(*port, from_client, &data).await {
                // A client that is gone needs no reason.
                error.write(refused.to_string().into()).await.ok();
            }
        });
    }
    drop(messages);
    let forwarding = async {
        connections.collect::<()>().await;
        // All that they have sent is still to be written.
        std::future::pending().await
    };
    tokio::select! {
        () = read(from_client, base64, inputs) => {}
        () = write(to_client, to_write, heartbeats(to.heartbeat_interval)) => {}
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
        let message = match message {
            Ok(Message::Binary(message)) if !base64 => message,
            Ok(Message::Text(message)) if base64 => message.into(),
            Ok(_) => continue,
            Err(error) => return tracing::debug!(%error, "a WebSocket to ports ended early"),
        };
        let Some((number, bytes)) = channel_of(base64, message) else { continue };
        // Odd channels are for errors: nothing is read from them.
        let input = inputs.get_mut(usize::from(number / 2)).filter(|_| number.is_multiple_of(2));
        if let Some(slot @ Some(_)) = input
            && let Some(input) = slot
            && !send_in_parts(&bytes, input).await
        {
            *slot = None;
        }
    }
}

/// Writes messages until no connection has any more, and closes. Sends heartbeats between them.
async fn write<I: AsyncRead + AsyncWrite + Unpin>(
    mut to: SplitSink<WebSocketStream<I>, Message>,
    mut messages: mpsc::Receiver<Message>,
    mut heartbeats: Interval,
) {
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            _ = heartbeats.tick() => Some(Message::Pong(Bytes::new())),
        };
        let Some(message) = message else { break };
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
    /// Cancelled when the pod has sent all: nothing more is taken for it.
    ended: CancellationToken,
}

#[async_trait::async_trait]
impl ToClient for Channel {
    async fn write(&self, bytes: Bytes) -> Result<(), Gone> {
        self.messages.send(message(self.base64, self.number, &bytes)).await.map_err(|_| Gone)
    }

    /// There is no message for it. A client cannot end its side of a channel, so this ends both: once all connections
    /// have ended, the client sees the end of the session.
    async fn finish(&self) -> Result<(), Gone> {
        self.ended.cancel();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn a_large_message_waits_in_small_parts_and_one_that_is_too_large_ends_the_session() {
        let (io, client) = tokio::io::duplex(64 * 1024);
        let (_, from) = server(io, LARGEST_TO_PORTS).await.split();
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let (input, parts) = mpsc::channel(QUEUED_PARTS);
        let reading = tokio::spawn(read(from, false, vec![Some(input)]));
        let sent = vec![7; 1 << 20];
        let sending = async {
            client.send(Message::binary([&[0][..], &sent].concat())).await.unwrap();
            client.send(Message::binary(vec![0; LARGEST_TO_PORTS + 1])).await.ok();
        };
        let parts = ReceiverStream::new(parts).inspect(|part| assert!(part.len() <= 16 * 1024));
        let ((), got) = tokio::join!(sending, parts.flat_map(stream::iter).collect::<Vec<u8>>());
        assert!(got == sent, "{} bytes", got.len());
        reading.await.unwrap();
    }

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
