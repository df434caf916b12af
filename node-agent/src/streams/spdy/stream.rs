//! Streams of a connection: both halves of each, and the table of those that are open.

use std::{
    collections::HashMap,
    convert::Infallible,
    ops::Deref,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    frame::{Frame, LARGEST_DATA, ResetStatus, StreamId},
    header_block::Headers,
};

/// Parts of data frames, of at most 16 KiB, that wait for one stream's reader.
const QUEUED_OF_STREAM: usize = 4;
/// The same for all streams of a connection.
const QUEUED_OF_CONNECTION: usize = 512;

/// One stream.
pub struct Stream {
    /// Its number.
    pub id: StreamId,
    /// What it was opened with; of what another side sent, as far as it matters here.
    pub headers: Headers,
    /// What the other side sends.
    pub reader: StreamReader,
    /// What is sent to the other side.
    pub writer: StreamWriter,
}

impl Stream {
    /// Ends the stream both ways, without waiting until that can be sent: the connection's driver sends it, behind all
    /// that was sent before.
    pub fn abandon(self) {
        // With its reader, what comes for it holds up nobody.
        let Self { writer, .. } = self;
        if let Some(table) = writer.registered.table.upgrade() {
            // A driver that has ended has ended all streams.
            table.abandoned.send(writer).ok();
        }
    }
}

/// The other side's half of a stream.
pub struct StreamReader {
    chunks: mpsc::Receiver<Chunk>,
    /// Keeps the stream in the table.
    _registered: Arc<Registered>,
}

/// This side's half of a stream.
pub struct StreamWriter {
    frames: mpsc::Sender<Frame>,
    registered: Arc<Registered>,
}

/// Bytes of the other side. They count as queued until they are dropped.
pub struct Chunk {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
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

impl StreamReader {
    /// The next bytes; `None` when the other side has sent its last, or the stream is gone. What had come before that
    /// is read first.
    pub async fn next(&mut self) -> Option<Chunk> {
        self.chunks.recv().await
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

    /// Completes when the other side has reset the stream, or its connection has ended.
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

/// The streams of one connection that are open.
pub struct StreamTable {
    streams: Mutex<HashMap<StreamId, Entry>>,
    room: Arc<Semaphore>,
    closed: CancellationToken,
    /// Each stream is in it once at most.
    abandoned: mpsc::UnboundedSender<StreamWriter>,
}

/// Streams of which nothing is left to do but a reset.
pub struct AbandonedStreams {
    writers: mpsc::UnboundedReceiver<StreamWriter>,
}

impl AbandonedStreams {
    /// Resets one after the other, for as long as it is awaited.
    pub async fn reset_all(mut self) -> Infallible {
        while let Some(writer) = self.writers.recv().await {
            // Gone meanwhile, it needs none.
            writer.reset().await.ok();
        }
        std::future::pending().await
    }
}

struct Entry {
    /// Dropped with the other side's last byte, and with its reset.
    chunks: Option<mpsc::Sender<Chunk>>,
    /// Of a stream that this side opened: until the other one accepts it, and dropped with its reset.
    accepted: Option<oneshot::Sender<()>>,
    reset: CancellationToken,
}

/// A stream's place in the table, until both halves are dropped.
struct Registered {
    id: StreamId,
    reset: CancellationToken,
    table: Weak<StreamTable>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.streams.lock().remove(&self.id);
        }
    }
}

impl StreamTable {
    /// A table without streams, and where those come that are abandoned.
    pub fn new() -> (Self, AbandonedStreams) {
        let (abandoned, writers) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(QUEUED_OF_CONNECTION));
        let table = Self { streams: Mutex::default(), room, closed: CancellationToken::new(), abandoned };
        (table, AbandonedStreams { writers })
    }

    /// Takes up a stream, whose frames go to `frames`. `accepted` is told when the other side accepts it.
    pub fn open(
        self: &Arc<Self>,
        id: StreamId,
        headers: Headers,
        frames: mpsc::Sender<Frame>,
        accepted: Option<oneshot::Sender<()>>,
    ) -> Stream {
        let (to_reader, chunks) = mpsc::channel(QUEUED_OF_STREAM);
        let reset = self.closed.child_token();
        let entry = Entry { chunks: Some(to_reader), accepted, reset: reset.clone() };
        self.streams.lock().insert(id, entry);
        let registered = Arc::new(Registered { id, reset, table: Arc::downgrade(self) });
        let reader = StreamReader { chunks, _registered: registered.clone() };
        Stream { id, headers, reader, writer: StreamWriter { frames, registered } }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.streams.lock().len()
    }

    /// With what it answers, all streams are gone.
    pub fn close_with(&self) -> DropGuard {
        self.closed.clone().drop_guard()
    }

    /// The other side accepts a stream, and sends nothing on it where that was its last word.
    pub fn accept(&self, id: StreamId, fin: bool) {
        if let Some(entry) = self.streams.lock().get_mut(&id)
            && let Some(accepted) = entry.accepted.take()
        {
            if fin {
                entry.chunks = None;
            }
            // Whoever opened it may have gone.
            accepted.send(()).ok();
        }
    }

    /// The other side has reset a stream.
    pub fn reset(&self, id: StreamId) {
        if let Some(entry) = self.streams.lock().get_mut(&id) {
            entry.chunks = None;
            entry.accepted = None;
            entry.reset.cancel();
        }
    }

    /// The other side has sent its last byte on a stream.
    pub fn finish(&self, id: StreamId) {
        if let Some(entry) = self.streams.lock().get_mut(&id) {
            entry.chunks = None;
        }
    }

    /// Queues bytes for a stream's reader; waits while there is no room. What comes for a stream that is over is passed
    /// over.
    pub async fn queue(&self, id: StreamId, bytes: Bytes) {
        let entry = self.streams.lock().get(&id).map(|entry| (entry.chunks.clone(), entry.reset.clone()));
        let Some((Some(chunks), reset)) = entry else { return };
        let queued = async {
            let room = self.room.clone().acquire_owned().await.expect("the semaphore is never closed");
            // Its reader may be gone, and its writer not.
            chunks.send(Chunk { bytes, _room: room }).await.ok();
        };
        reset.run_until_cancelled(queued).await;
    }
}
