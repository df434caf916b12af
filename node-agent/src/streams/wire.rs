//! A client of exec or attach, whatever protocol it speaks.

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::{handshake::CommandProtocol, outcome::CommandOutcome, spdy_wire, websocket_wire};
use crate::runtime::{StreamOptions, TerminalSize};

/// What a client sends, and how it is sent to.
pub struct Wire {
    /// Its standard input, until it closes that or is gone; `None` where it was not asked for.
    pub stdin: Option<BoxStream<'static, Bytes>>,
    /// The latest size of its terminal.
    pub size: watch::Receiver<Option<TerminalSize>>,
    /// Does the reading of both: to be awaited beside them. Ends when the client is gone, never before.
    pub reading: BoxFuture<'static, ()>,
    /// Where output goes.
    pub writer: Box<dyn OutputWriter>,
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// A terminal's, too.
    Stdout,
    /// Of a process without a terminal.
    Stderr,
}

/// Sends to a client.
#[async_trait::async_trait]
pub trait OutputWriter: Send {
    /// Sends output. Waits where the client is slow; what was not asked for is dropped.
    async fn write(&mut self, stream: OutputStream, bytes: Bytes) -> Result<(), ClientGone>;

    /// Sends what the client passes over: see [`super::HEARTBEAT_INTERVAL`].
    async fn heartbeat(&mut self) -> Result<(), ClientGone>;

    /// Tells how it ended, and that nothing more comes.
    async fn finish(&mut self, outcome: &CommandOutcome) -> Result<(), ClientGone>;
}

/// The connection to the client has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct ClientGone;

impl Wire {
    /// Takes up a connection. `None` where the client goes away, or does not say what it must, before it is complete.
    pub async fn connect(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        protocol: CommandProtocol,
        streams: StreamOptions,
    ) -> Option<Self> {
        match protocol {
            CommandProtocol::WebSocket(channels) => websocket_wire::connect(io, channels, streams).await,
            CommandProtocol::Spdy { version } => spdy_wire::connect(io, version, streams).await,
        }
    }
}

/// Reads the sizes that a client's terminal takes: JSON values behind each other, cut anywhere.
#[derive(Default)]
pub struct SizeReader(Vec<u8>);

/// Of one size, as JSON.
const LARGEST_SIZE: usize = 1024;

impl SizeReader {
    /// The latest size that is complete with these bytes. Nonsense is forgotten.
    pub fn read(&mut self, bytes: &[u8]) -> Option<TerminalSize> {
        if self.0.len().saturating_add(bytes.len()) > LARGEST_SIZE {
            self.0.clear();
            return None;
        }
        self.0.extend_from_slice(bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&self.0).into_iter::<TerminalSize>();
        let (mut latest, mut read) = (None, 0);
        let rest = loop {
            match sizes.next() {
                Some(Ok(size)) => (latest, read) = (Some(size), sizes.byte_offset()),
                Some(Err(error)) if error.is_eof() => break true,
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        if rest {
            self.0.drain(..read);
        } else {
            self.0.clear();
        }
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_however_they_are_cut_and_nonsense_is_forgotten() {
        let mut reader = SizeReader::default();
        let size = |width, height| Some(TerminalSize { width, height });
        assert_eq!(reader.read(b"{\"Width\":80,\"Height\":24}\n"), size(80, 24));
        assert_eq!(reader.read(b"{\"Width\":100,"), None);
        assert_eq!(reader.read(b"\"Height\":30}{\"width\":1,\"height\":2}{\"Wi"), size(1, 2));
        assert_eq!(reader.read(b"dth\":3,\"Height\":4}"), size(3, 4));
        for nonsense in [&b"{\"Width\":-1,\"Height\":70000}"[..], b"no", &[0; 5000]] {
            assert_eq!(reader.read(nonsense), None);
        }
        assert_eq!(reader.read(b"{\"Width\":5,\"Height\":6}"), size(5, 6));
    }
}
