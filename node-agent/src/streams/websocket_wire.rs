//! Channels over a WebSocket: each message begins with the number of the channel that it belongs to.
//!
//! Source: `wsstream.Conn` of apimachinery.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{
    FutureExt, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    handshake::ChannelProtocol,
    outcome::CommandOutcome,
    wire::{ClientGone, OutputStream, OutputWriter, SizeReader, Wire},
};
use crate::runtime::{StreamOptions, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Followed by a channel's number: nothing more comes on it.
const CLOSE: u8 = 255;
/// Of a message to a container: programs send a whole file as one. Source: `DefaultMaxPayloadBytes` of
/// `golang.org/x/net/websocket`.
const LARGEST_TO_CONTAINER: usize = 32 << 20;
/// Of a message to ports. client-go sends 32 KiB, and the Python client 1 MiB.
pub const LARGEST_TO_PORTS: usize = 4 << 20;
/// Of a part of a message that waits to be taken.
const LARGEST_PART: usize = 16 * 1024;
/// Parts of messages that wait to be taken, by a process or by one connection to a port.
pub const QUEUED_PARTS: usize = 4;

/// A WebSocket on the server's side, after its handshake, with messages of at most `largest` bytes.
pub async fn server<I: AsyncRead + AsyncWrite + Unpin>(io: I, largest: usize) -> WebSocketStream<I> {
    let config = WebSocketConfig::default().max_message_size(Some(largest)).max_frame_size(Some(largest));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Sends the bytes of a message on; false where nobody takes them any more. They go in copies of small parts, so that
/// what waits is no whole messages, and keeps none.
pub async fn send_in_parts(bytes: &[u8], to: &mpsc::Sender<Bytes>) -> bool {
    for part in bytes.chunks(LARGEST_PART) {
        if to.send(Bytes::copy_from_slice(part)).await.is_err() {
            return false;
        }
    }
    true
}

/// Takes up a connection, and tells the client that it stands.
pub async fn connect<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    io: I,
    protocol: ChannelProtocol,
    streams: StreamOptions,
) -> Option<Wire> {
    let (to, from) = server(io, LARGEST_TO_CONTAINER).await.split();
    let mut writer = ChannelWriter { to, protocol, streams };
    // As in Kubernetes, an empty message on the first channel that there is.
    let first = match streams {
        StreamOptions { stdout: true, .. } => STDOUT,
        StreamOptions { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    writer.send(first, &[]).await.ok()?;
    let (to_stdin, stdin) = mpsc::channel(QUEUED_PARTS);
    let (to_size, size) = watch::channel(None);
    let reader = ChannelReader {
        protocol,
        stdin: streams.stdin.then_some(to_stdin),
        size: to_size,
        sizes: SizeReader::default(),
    };
    Some(Wire {
        stdin: streams.stdin.then(|| ReceiverStream::new(stdin).boxed()),
        size,
        reading: reader.run(from).boxed(),
        writer: Box::new(writer),
    })
}

struct ChannelReader {
    protocol: ChannelProtocol,
    /// Dropped when the client has closed it, or the process takes no more.
    stdin: Option<mpsc::Sender<Bytes>>,
    size: watch::Sender<Option<TerminalSize>>,
    sizes: SizeReader,
}

impl ChannelReader {
    async fn run<I: AsyncRead + AsyncWrite + Unpin>(mut self, mut from: SplitStream<WebSocketStream<I>>) {
        while let Some(message) = from.next().await {
            let message = match message {
                Ok(Message::Binary(message)) => message,
                Ok(Message::Text(message)) => message.into(),
                // Answered by the library: a closing one when the next is asked for, which ends this.
                Ok(_) => continue,
                Err(error) => return tracing::debug!(%error, "a WebSocket to a container ended early"),
            };
            if !self.take(message).await {
                return tracing::debug!("a WebSocket to a container closed a channel that there is not");
            }
        }
    }

    /// False where the client breaks the protocol.
    async fn take(&mut self, message: Bytes) -> bool {
        if self.protocol.version >= 5
            && let [CLOSE, closed @ ..] = message.as_ref()
        {
            if *closed == [STDIN] {
                self.stdin = None;
            }
            return matches!(closed, [STDIN..=RESIZE]);
        }
        let Some((channel, bytes)) = channel_of(self.protocol.base64, message) else { return true };
        if channel == STDIN {
            if let Some(stdin) = &self.stdin
                && !send_in_parts(&bytes, stdin).await
            {
                self.stdin = None;
            }
        } else if channel == RESIZE
            && let Some(size) = self.sizes.read(&bytes)
        {
            self.size.send_replace(Some(size));
        }
        true
    }
}

struct ChannelWriter<I> {
    to: SplitSink<WebSocketStream<I>, Message>,
    protocol: ChannelProtocol,
    streams: StreamOptions,
}

impl<I: AsyncRead + AsyncWrite + Unpin> ChannelWriter<I> {
    async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), ClientGone> {
        self.to.send(message(self.protocol.base64, channel, bytes)).await.map_err(|_| ClientGone)
    }
}

/// A message for one channel. In base64 its number is one character, counted from `0`.
pub fn message(base64: bool, channel: u8, bytes: &[u8]) -> Message {
    if base64 {
        let channel = char::from(b'0'.wrapping_add(channel));
        return Message::text(format!("{channel}{}", BASE64_STANDARD.encode(bytes)));
    }
    let mut message = Vec::with_capacity(bytes.len().saturating_add(1));
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::binary(message)
}

/// The channel of a message, and its bytes; nothing of a message that is empty or no base64.
pub fn channel_of(base64: bool, message: Bytes) -> Option<(u8, Bytes)> {
    let first = *message.first()?;
    let bytes = message.slice(1..);
    if !base64 {
        return Some((first, bytes));
    }
    match BASE64_STANDARD.decode(&bytes) {
        Ok(bytes) => Some((first.wrapping_sub(b'0'), bytes.into())),
        Err(error) => {
            tracing::debug!(%error, "a message on a WebSocket is passed over");
            None
        }
    }
}

#[async_trait::async_trait]
impl<I: AsyncRead + AsyncWrite + Send + Unpin> OutputWriter for ChannelWriter<I> {
    async fn write(&mut self, stream: OutputStream, bytes: Bytes) -> Result<(), ClientGone> {
        match stream {
            OutputStream::Stdout if self.streams.stdout => self.send(STDOUT, &bytes).await,
            OutputStream::Stderr if self.streams.stderr => self.send(STDERR, &bytes).await,
            _ => Ok(()),
        }
    }

    /// A pong that nobody asked for (RFC 6455, section 5.5.3).
    async fn heartbeat(&mut self) -> Result<(), ClientGone> {
        self.to.send(Message::Pong(Bytes::new())).await.map_err(|_| ClientGone)
    }

    async fn finish(&mut self, outcome: &CommandOutcome) -> Result<(), ClientGone> {
        if let Some(message) = outcome.to_message(self.protocol.version) {
            self.send(ERROR, message.as_bytes()).await?;
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.to.send(Message::Close(Some(close))).await.map_err(|_| ClientGone)
    }
}
