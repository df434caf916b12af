//! The server's side of one connection: which streams the client has opened, and who gets what comes on them.
//!
//! ```text
//!   client ──frames──▶ read ──Chunk──▶ StreamReader (one per stream)
//!   client ◀─frames─── write ◀─Frame── StreamWriter (one per stream)
//! ```
//!
//! All of it is one future, [`Connection::driver`]: with it, everything of the connection is gone. What is queued is
//! bounded per stream and for all of them; who reads nothing holds up the connection, as in `moby/spdystream`.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::{
    codec::{Encoder, FramedRead},
    sync::CancellationToken,
};

use super::{
    frame::{Frame, FrameDecoder, FrameEncoder, FrameError, LARGEST_DATA, ResetStatus, StreamId},
    header_block::Headers,
};

/// Parts of data frames, of at most 16 KiB, that wait for one stream's reader.
const QUEUED_OF_STREAM: usize = 4;
/// The same for all streams of a connection.
const QUEUED_OF_CONNECTION: usize = 512;
/// Frames that wait to be written.
const QUEUED_TO_CLIENT: usize = 8;
/// Streams that wait for the connection's owner to take them.
const QUEUED_STREAMS: usize = 8;

/// A client's connection.
pub struct Connection {
    /// Streams that the client opens.
    pub incoming: mpsc::Receiver<Stream>,
    /// Writes on the connection itself.
    pub closer: Closer,
    /// Does all the work: to be awaited beside what uses the streams. Ends once the client is gone, or has broken the
    /// protocol.
    pub driver: BoxFuture<'static, ()>,
}

/// One stream.
pub struct Stream {
    /// Its number.
    pub id: StreamId,
    /// What the client opened it with.
    pub headers: Headers,
    /// What the client sends.
    pub reader: StreamReader,
    /// What is sent to the client.
    pub writer: StreamWriter,
}

/// The client's half of a stream.
pub struct StreamReader {
    chunks: mpsc::Receiver<Chunk>,
    registered: Arc<Registered>,
}

/// The server's half of a stream.
pub struct StreamWriter {
    frames: mpsc::Sender<Frame>,
    registered: Arc<Registered>,
}

/// Bytes of a client. They count as queued until they are dropped.
pub struct Chunk {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Deref for Chunk {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// The stream was reset, or its connection has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is gone")]
pub struct Gone;

impl Connection {
    /// Speaks SPDY over `io`. Streams whose headers `accepts` does not take are reset, and so are those beyond
    /// `most_streams` at a time.
    pub fn new(
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        most_streams: usize,
        accepts: fn(&Headers) -> bool,
    ) -> Self {
        let (from, to) = tokio::io::split(io);
        let (frames, to_write) = mpsc::channel(QUEUED_TO_CLIENT);
        let (opened, incoming) = mpsc::channel(QUEUED_STREAMS);
        let table = Arc::new(Table::default());
        let reading = Reading {
            table: table.clone(),
            frames: frames.clone(),
            opened,
            room: Arc::new(Semaphore::new(QUEUED_OF_CONNECTION)),
            last: 0,
            most_streams,
            accepts,
        };
        let driver = async move {
            // However this ends: nobody waits for a stream of a connection that is gone.
            let _closed = table.closed.clone().drop_guard();
            let mut reading = std::pin::pin!(reading.run(FramedRead::new(from, FrameDecoder::default())));
            let written = tokio::select! {
                read = &mut reading => return ended(read),
                written = write(to, to_write) => written,
            };
            match written {
                Ok(()) => ended(reading.await),
                Err(error) => tracing::debug!(%error, "a SPDY connection broke off"),
            }
        };
        Self { incoming, closer: Closer { frames }, driver: driver.boxed() }
    }
}

fn ended(read: Result<(), FrameError>) {
    if let Err(error) = read {
        tracing::debug!(%error, "a SPDY connection ended early");
    }
}

/// Ends a connection from this side.
pub struct Closer {
    frames: mpsc::Sender<Frame>,
}

impl Closer {
    /// Says that nothing more comes, behind all that was sent before. The driver ends when the client closes, too.
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

/// The streams that are open.
#[derive(Default)]
struct Table {
    streams: Mutex<HashMap<StreamId, Entry>>,
    closed: CancellationToken,
}

struct Entry {
    /// Dropped with the client's last byte.
    chunks: Option<mpsc::Sender<Chunk>>,
    reset: CancellationToken,
}

/// A stream's place in the table, until both halves are dropped.
struct Registered {
    id: StreamId,
    reset: CancellationToken,
    table: Weak<Table>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.streams.lock().remove(&self.id);
        }
    }
}

struct Reading {
    table: Arc<Table>,
    frames: mpsc::Sender<Frame>,
    opened: mpsc::Sender<Stream>,
    room: Arc<Semaphore>,
    /// The latest stream's number.
    last: StreamId,
    most_streams: usize,
    accepts: fn(&Headers) -> bool,
}

impl Reading {
    async fn run<R: AsyncRead + Unpin>(mut self, mut frames: FramedRead<R, FrameDecoder>) -> Result<(), FrameError> {
        while let Some(frame) = frames.next().await {
            match frame? {
                Frame::SynStream { stream, fin, headers } => self.open(stream, fin, headers).await,
                Frame::Data { stream, fin, bytes } => self.data(stream, fin, bytes).await,
                Frame::RstStream { stream, .. } => {
                    if let Some(entry) = self.table.streams.lock().remove(&stream) {
                        entry.reset.cancel();
                    }
                }
                // Even numbers are answers to this side, which never asks.
                Frame::Ping(id) if !id.is_multiple_of(2) => self.send(Frame::Ping(id)).await,
                Frame::GoAway { .. } => return Ok(()),
                Frame::SynReply { .. } | Frame::Ping(_) | Frame::Ignored => {}
            }
        }
        Ok(())
    }

    /// Whether there is still a writer shows where its end is awaited.
    async fn send(&self, frame: Frame) {
        self.frames.send(frame).await.ok();
    }

    async fn open(&mut self, id: StreamId, fin: bool, headers: Headers) {
        let is_full = self.table.streams.lock().len() >= self.most_streams;
        let refusal = match () {
            () if id.is_multiple_of(2) || id <= self.last => Some(ResetStatus::PROTOCOL_ERROR),
            () if is_full => Some(ResetStatus::REFUSED_STREAM),
            () if !(self.accepts)(&headers) => Some(ResetStatus::CANCEL),
            () => None,
        };
        self.last = self.last.max(id);
        if let Some(status) = refusal {
            return self.send(Frame::RstStream { stream: id, status }).await;
        }
        let (to_reader, chunks) = mpsc::channel(QUEUED_OF_STREAM);
        let reset = self.table.closed.child_token();
        let entry = Entry { chunks: (!fin).then_some(to_reader), reset: reset.clone() };
        self.table.streams.lock().insert(id, entry);
        let registered = Arc::new(Registered { id, reset, table: Arc::downgrade(&self.table) });
        let reader = StreamReader { chunks, registered: registered.clone() };
        let writer = StreamWriter { frames: self.frames.clone(), registered };
        self.send(Frame::SynReply { stream: id, fin: false, headers: Headers::default() }).await;
        // Dropped where nobody takes streams any more.
        self.opened.send(Stream { id, headers, reader, writer }).await.ok();
    }

    async fn data(&self, id: StreamId, fin: bool, bytes: Bytes) {
        let entry = self.table.streams.lock().get(&id).map(|entry| (entry.chunks.clone(), entry.reset.clone()));
        // What comes for a stream that is over is passed over.
        let Some((Some(chunks), reset)) = entry else { return };
        if !bytes.is_empty() {
            let queued = async {
                let room = self.room.clone().acquire_owned().await.expect("the semaphore is never closed");
                // Its reader may be gone, and its writer not.
                chunks.send(Chunk { bytes, _room: room }).await.ok();
            };
            reset.run_until_cancelled(queued).await;
        }
        if fin && let Some(entry) = self.table.streams.lock().get_mut(&id) {
            entry.chunks = None;
        }
    }
}

impl StreamReader {
    /// The next bytes; `None` when the client has sent its last, or the stream is gone.
    pub async fn next(&mut self) -> Option<Chunk> {
        self.registered.reset.run_until_cancelled(self.chunks.recv()).await.flatten()
    }
}

impl StreamWriter {
    /// Sends bytes.
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(LARGEST_DATA));
            self.send(Frame::Data { stream: self.registered.id, fin: false, bytes: part }).await?;
        }
        Ok(())
    }

    /// Says that nothing more comes.
    pub async fn finish(&self) -> Result<(), Gone> {
        self.send(Frame::Data { stream: self.registered.id, fin: true, bytes: Bytes::new() }).await
    }

    /// Ends the stream both ways.
    pub async fn reset(&self) -> Result<(), Gone> {
        self.send(Frame::RstStream { stream: self.registered.id, status: ResetStatus::CANCEL }).await
    }

    /// Completes when the stream was reset, or its connection has ended.
    pub async fn gone(&self) {
        self.registered.reset.cancelled().await;
    }

    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.registered.reset.cancelled() => Err(Gone),
            sent = self.frames.send(frame) => sent.map_err(|_| Gone),
        }
    }
}

#[cfg(test)]
mod tests;
