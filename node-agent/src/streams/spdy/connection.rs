//! One connection: which streams are open, and who gets what comes on them.
//!
//! ```text
//!   other side ──frames──▶ Reading ──Chunk──▶ StreamReader (one per stream)
//!   other side ◀─frames─── write   ◀─Frame─── StreamWriter (one per stream)
//! ```
//!
//! All of it is one future, the driver: with it, everything of the connection is gone. What is queued is bounded per
//! stream and for all of them; who reads nothing holds up the connection, as in `moby/spdystream`.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc::{self, error::TrySendError},
};
use tokio_util::codec::{Encoder, FramedRead};

use super::{
    frame::{Frame, FrameDecoder, FrameEncoder, FrameError, ResetStatus, StreamId},
    header_block::Headers,
    stream::{Gone, Stream, StreamTable},
};

/// Frames that wait to be written.
const QUEUED_TO_WRITE: usize = 8;
/// Streams that wait for the connection's owner to take them.
const QUEUED_STREAMS: usize = 8;
/// A server's heartbeat is the answer to a ping that the client never sent, which it passes over.
const SERVERS_HEARTBEAT: Frame = Frame::Ping(u32::MAX);
/// A client asks for an answer, as client-go does: a proxy on the way may want to see bytes both ways.
const CLIENTS_HEARTBEAT: Frame = Frame::Ping(1);
/// Headers that are kept. Source: `StreamType` and the others of `k8s.io/api/core/v1`.
const KEPT_HEADERS: [&str; 3] = ["streamtype", "port", "requestid"];

/// A client's connection, from the server's side.
pub struct Connection {
    /// Streams that the client opens.
    pub incoming: mpsc::Receiver<Stream>,
    /// Writes on the connection itself, rather than on a stream.
    pub closer: Closer,
    /// Does all the work: to be awaited beside what uses the streams. Ends once the client is gone, or has broken the
    /// protocol.
    pub driver: BoxFuture<'static, ()>,
}

impl Connection {
    /// Speaks SPDY over `io`. Streams whose headers `accepts` does not take are reset, and so are those beyond
    /// `most_streams` at a time; one counts until its halves are dropped, whether or not the client has reset it.
    pub fn new(
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        most_streams: usize,
        accepts: fn(&Headers) -> bool,
    ) -> Self {
        let (opened, incoming) = mpsc::channel(QUEUED_STREAMS);
        let acceptor = Acceptor { opened, last: 0, most_streams, accepts };
        let Driven { closer, driver, .. } = drive(io, Side::Server(acceptor));
        Self { incoming, closer, driver }
    }
}

/// Which side of a connection this is.
pub enum Side {
    /// It opens streams, with odd numbers, and takes none.
    Client,
    /// It takes streams.
    Server(Acceptor),
}

impl Side {
    /// Whether a ping is the other side's, and not the answer to one of this side.
    fn answers(&self, ping: u32) -> bool {
        match self {
            Self::Client => ping.is_multiple_of(2),
            Self::Server(_) => !ping.is_multiple_of(2),
        }
    }
}

/// Takes streams that a client opens.
pub struct Acceptor {
    opened: mpsc::Sender<Stream>,
    /// The latest stream's number.
    last: StreamId,
    most_streams: usize,
    accepts: fn(&Headers) -> bool,
}

/// A connection of either side.
pub struct Driven {
    /// Frames to be written.
    pub frames: mpsc::Sender<Frame>,
    /// Its streams, which the driver holds.
    pub table: Arc<StreamTable>,
    /// Writes on the connection itself.
    pub closer: Closer,
    /// Does all the work.
    pub driver: BoxFuture<'static, ()>,
}

/// Speaks SPDY over `io`.
pub fn drive(io: impl AsyncRead + AsyncWrite + Send + 'static, side: Side) -> Driven {
    let (from, to) = tokio::io::split(io);
    let (frames, to_write) = mpsc::channel(QUEUED_TO_WRITE);
    let (table, abandoned) = StreamTable::new();
    let table = Arc::new(table);
    let heartbeat = match side {
        Side::Client => CLIENTS_HEARTBEAT,
        Side::Server(_) => SERVERS_HEARTBEAT,
    };
    let reading = Reading { table: table.clone(), frames: frames.clone(), side };
    // However the driver ends: nobody waits for a stream of a connection that is gone.
    let closed = table.close_with();
    let driver = async move {
        let _closed = closed;
        let mut reading = std::pin::pin!(reading.run(FramedRead::new(from, FrameDecoder::default())));
        let written = tokio::select! {
            read = &mut reading => return ended(read),
            written = write(to, to_write) => written,
            never = abandoned.reset_all() => match never {},
        };
        match written {
            Ok(()) => ended(reading.await),
            Err(error) => tracing::debug!(%error, "a SPDY connection broke off"),
        }
    };
    Driven { closer: Closer { frames: frames.clone(), heartbeat }, frames, table, driver: driver.boxed() }
}

fn ended(read: Result<(), FrameError>) {
    if let Err(error) = read {
        tracing::debug!(%error, "a SPDY connection ended early");
    }
}

/// Ends a connection from this side, or finds that it has ended.
pub struct Closer {
    frames: mpsc::Sender<Frame>,
    heartbeat: Frame,
}

impl Closer {
    /// Sends a heartbeat, unless other frames wait to be sent. Where the other side is gone, that ends the driver.
    pub fn heartbeat(&self) -> Result<(), Gone> {
        match self.frames.try_send(self.heartbeat.clone()) {
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Gone),
        }
    }

    /// Says that nothing more comes, behind all that was sent before. The driver ends when the other side closes, too.
    pub async fn close(&self) -> Result<(), Gone> {
        self.frames.send(Frame::GoAway { last: 0 }).await.map_err(|_| Gone)
    }
}

/// Writes frames as they come; the last is [`Frame::GoAway`].
async fn write(mut to: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) -> std::io::Result<()> {
    let (mut encoder, mut buffer) = (FrameEncoder::default(), bytes::BytesMut::new());
    while let Some(frame) = frames.recv().await {
        let is_last = matches!(frame, Frame::GoAway { .. });
        encoder.encode(frame, &mut buffer)?;
        to.write_all_buf(&mut buffer).await?;
        to.flush().await?;
        if is_last {
            break;
        }
    }
    to.shutdown().await
}

struct Reading {
    table: Arc<StreamTable>,
    frames: mpsc::Sender<Frame>,
    side: Side,
}

impl Reading {
    async fn run<R: AsyncRead + Unpin>(mut self, mut frames: FramedRead<R, FrameDecoder>) -> Result<(), FrameError> {
        while let Some(frame) = frames.next().await {
            match frame? {
                Frame::SynStream { stream, fin, headers } => self.open(stream, fin, headers).await,
                Frame::SynReply { stream, fin, .. } => self.table.accept(stream, fin),
                Frame::Data { stream, fin, bytes } => {
                    if !bytes.is_empty() {
                        self.table.queue(stream, bytes).await;
                    }
                    if fin {
                        self.table.finish(stream);
                    }
                }
                Frame::RstStream { stream, .. } => self.table.reset(stream),
                Frame::Ping(id) if self.side.answers(id) => self.send(Frame::Ping(id)).await,
                Frame::GoAway { .. } => return Ok(()),
                Frame::Ping(_) | Frame::Ignored => {}
            }
        }
        Ok(())
    }

    /// Whether there is still a writer shows where its end is awaited.
    async fn send(&self, frame: Frame) {
        self.frames.send(frame).await.ok();
    }

    async fn open(&mut self, id: StreamId, fin: bool, mut headers: Headers) {
        headers.retain(&KEPT_HEADERS);
        let acceptor = match &mut self.side {
            Side::Server(acceptor) => acceptor,
            // Kubernetes' servers open none.
            Side::Client => {
                return self.send(Frame::RstStream { stream: id, status: ResetStatus::REFUSED_STREAM }).await;
            }
        };
        let is_full = self.table.count() >= acceptor.most_streams;
        let refusal = match () {
            () if id.is_multiple_of(2) || id <= acceptor.last => Some(ResetStatus::PROTOCOL_ERROR),
            () if is_full => Some(ResetStatus::REFUSED_STREAM),
            () if !(acceptor.accepts)(&headers) => Some(ResetStatus::CANCEL),
            () => None,
        };
        acceptor.last = acceptor.last.max(id);
        if let Some(status) = refusal {
            return self.send(Frame::RstStream { stream: id, status }).await;
        }
        let opened = acceptor.opened.clone();
        let stream = self.table.open(id, headers, self.frames.clone(), None);
        if fin {
            self.table.finish(id);
        }
        self.send(Frame::SynReply { stream: id, fin: false, headers: Headers::default() }).await;
        // Dropped where nobody takes streams any more.
        opened.send(stream).await.ok();
    }
}

#[cfg(test)]
mod tests;
