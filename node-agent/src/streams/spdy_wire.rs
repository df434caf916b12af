//! Streams over SPDY: the client opens one for each of standard input, output and error, for errors, and for the size
//! of its terminal. Which is which says the header `streamtype`.
//!
//! Source: `createHTTPStreamStreams` of `k8s.io/kubelet/pkg/cri/streaming/remotecommand`.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
};

use super::{
    outcome::CommandOutcome,
    spdy::{Connection, Gone, Headers, Stream, StreamReader, StreamWriter},
    wire::{ClientGone, OutputStream, OutputWriter, SizeReader, Wire},
};
use crate::runtime::{StreamOptions, TerminalSize};

/// How long a client may take to open its streams. Source: `DefaultStreamCreationTimeout`.
const OPENED_WITHIN: Duration = Duration::from_secs(30);
/// A client needs five.
const MOST_STREAMS: usize = 16;
const KIND: &str = "streamtype";

impl From<Gone> for ClientGone {
    fn from(_: Gone) -> Self {
        Self
    }
}

fn is_known(headers: &Headers) -> bool {
    matches!(headers.get(KIND), "stdin" | "stdout" | "stderr" | "error" | "resize")
}

/// Takes up a connection, once the client has opened all its streams.
pub async fn connect(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    version: u8,
    streams: StreamOptions,
) -> Option<Wire> {
    let mut connection = Connection::new(io, MOST_STREAMS, is_known);
    let opened = async {
        let mut opened = Opened::default();
        while !opened.is_complete(version, streams) {
            opened.put(connection.incoming.recv().await?);
        }
        Some(opened)
    };
    let opened = tokio::select! {
        () = &mut connection.driver => None,
        opened = tokio::time::timeout(OPENED_WITHIN, opened) => opened.unwrap_or_default(),
    };
    let Some(opened) = opened else {
        tracing::debug!("a client of a container did not open its streams");
        return None;
    };
    Some(opened.into_wire(version, connection))
}

/// The streams that a client has opened.
#[derive(Default)]
struct Opened {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    error: Option<Stream>,
    resize: Option<Stream>,
}

impl Opened {
    fn put(&mut self, stream: Stream) {
        let slot = match stream.headers.get(KIND) {
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => &mut self.error,
        };
        *slot = Some(stream);
    }

    /// The first two versions cannot tell a terminal's size.
    fn is_complete(&self, version: u8, wanted: StreamOptions) -> bool {
        let slots = [
            (wanted.stdin, &self.stdin),
            (wanted.stdout, &self.stdout),
            (wanted.stderr, &self.stderr),
            (wanted.tty && version >= 3, &self.resize),
            (true, &self.error),
        ];
        slots.into_iter().all(|(is_wanted, slot)| slot.is_some() || !is_wanted)
    }

    fn into_wire(self, version: u8, connection: Connection) -> Wire {
        let (to_size, size) = watch::channel(None);
        let (resizes, resize_writer) = halves(self.resize);
        let (stdin, stdin_writer) = halves(self.stdin);
        let ((_, stdout), (_, stderr), (_, error)) = (halves(self.stdout), halves(self.stderr), halves(self.error));
        let Connection { incoming, closer, driver } = connection;
        let resizing: BoxFuture<'static, ()> = match resizes {
            Some(resizes) => follow_size(resizes, to_size).boxed(),
            None => futures::future::pending().boxed(),
        };
        let reading = async move {
            tokio::select! {
                () = driver => {}
                () = async { tokio::join!(resizing, refuse_more(incoming)); } => {}
            }
        };
        let stdin = stdin.map(|stdin| match version {
            // Its input could not be closed, so that it has none.
            1 => stream::empty().boxed(),
            _ => stream::unfold(stdin, |mut stdin| async {
                let chunk = stdin.next().await?;
                Some((Bytes::clone(&chunk), stdin))
            })
            .boxed(),
        });
        let writer = SpdyWriter { version, stdout, stderr, error, silent: [stdin_writer, resize_writer], closer };
        Wire { stdin, size, reading: reading.boxed(), writer: Box::new(writer) }
    }
}

fn halves(stream: Option<Stream>) -> (Option<StreamReader>, Option<StreamWriter>) {
    stream.map(|stream| (stream.reader, stream.writer)).unzip()
}

/// A client needs no more streams than it opened at first.
async fn refuse_more(mut incoming: mpsc::Receiver<Stream>) {
    while let Some(stream) = incoming.recv().await {
        // Gone already, it needs no reset.
        stream.writer.reset().await.ok();
    }
    futures::future::pending().await
}

async fn follow_size(mut from: StreamReader, to: watch::Sender<Option<TerminalSize>>) {
    let mut sizes = SizeReader::default();
    while let Some(bytes) = from.next().await {
        if let Some(size) = sizes.read(&bytes) {
            to.send_replace(Some(size));
        }
    }
}

struct SpdyWriter {
    version: u8,
    stdout: Option<StreamWriter>,
    stderr: Option<StreamWriter>,
    error: Option<StreamWriter>,
    /// Halves on which nothing is sent but their end.
    silent: [Option<StreamWriter>; 2],
    closer: super::spdy::Closer,
}

#[async_trait::async_trait]
impl OutputWriter for SpdyWriter {
    async fn write(&mut self, stream: OutputStream, bytes: Bytes) -> Result<(), ClientGone> {
        let to = match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        };
        match to {
            Some(to) => Ok(to.write(bytes).await?),
            None => Ok(()),
        }
    }

    async fn heartbeat(&mut self) -> Result<(), ClientGone> {
        Ok(self.closer.heartbeat()?)
    }

    async fn finish(&mut self, outcome: &CommandOutcome) -> Result<(), ClientGone> {
        if let (Some(error), Some(message)) = (&self.error, outcome.to_message(self.version)) {
            // Gone alone, it is not missed.
            error.write(message.into()).await.ok();
        }
        let [stdin, resize] = &self.silent;
        for writer in [&self.stdout, &self.stderr, stdin, resize, &self.error].into_iter().flatten() {
            writer.finish().await.ok();
        }
        Ok(self.closer.close().await?)
    }
}
