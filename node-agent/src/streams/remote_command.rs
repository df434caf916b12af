//! One session of exec or attach: copies between a client and a process until either has ended.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    idle::{LastActivity, heartbeats},
    outcome::CommandOutcome,
    wire::{ClientGone, OutputStream, OutputWriter, Wire},
};
use crate::runtime::{Error, LogChunk, Process, ProcessControl, TerminalSize};

/// How long a client may take to read the last bytes, and to close its side.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// A client's connection that stands.
pub struct Session {
    /// The client.
    pub wire: Wire,
    /// Cuts the session.
    pub stop: CancellationToken,
    /// The longest that it may be silent.
    pub idle_limit: Duration,
    /// Between two heartbeats to the client.
    pub heartbeat_interval: Duration,
}

/// Why the copying ended.
enum End {
    /// The process closed its output.
    Process,
    /// Its output could not be read to the end.
    Broken(Error),
    /// Nobody reads it any more.
    Client,
    /// It was cut: the agent stops, or nothing was sent for too long.
    Cut(&'static str),
}

impl Session {
    /// Runs the session of a process, or says that there is none.
    pub async fn run(self, process: Result<Process, CommandOutcome>) {
        let process = match process {
            Ok(process) => process,
            Err(outcome) => return self.refuse(outcome).await,
        };
        let Self { wire: Wire { stdin, size, mut reading, mut writer }, stop, idle_limit, heartbeat_interval } = self;
        let Process { input, output, mut control } = process;
        let activity = LastActivity::now();
        let end = tokio::select! {
            end = show(output, &mut *writer, &activity, heartbeat_interval) => end,
            () = &mut reading => End::Client,
            () = stop.cancelled() => End::Cut("the node agent stops"),
            () = activity.idle_for(idle_limit) => End::Cut("nothing was sent for too long"),
            never = beside(feed(stdin, input, &activity), follow_size(size, &*control)) => never,
        };
        let outcome = match end {
            End::Process => Some(match control.exit_code().await {
                Ok(code) => CommandOutcome::of(code),
                Err(error) => CommandOutcome::Failed(error.chain()),
            }),
            End::Broken(error) => Some(CommandOutcome::Failed(error.chain())),
            End::Cut(why) => Some(CommandOutcome::Failed(why.to_owned())),
            End::Client => None,
        };
        // Before the client is told: who is told that a command has ended finds nothing of it.
        control.end().await;
        if let Some(outcome) = outcome {
            finish(&mut *writer, reading, &outcome).await;
        }
    }

    /// Tells the client why there is no process.
    pub async fn refuse(self, outcome: CommandOutcome) {
        let Wire { reading, mut writer, .. } = self.wire;
        finish(&mut *writer, reading, &outcome).await;
    }
}

/// Sends the last message, and reads until the client closes: closed before, what it sent meanwhile would have the
/// kernel reset the connection and throw away what the client has not read yet.
async fn finish(writer: &mut dyn OutputWriter, reading: impl Future<Output = ()>, outcome: &CommandOutcome) {
    let mut reading = std::pin::pin!(reading);
    let finishing = async {
        let finished = tokio::select! {
            () = &mut reading => return,
            finished = writer.finish(outcome) => finished,
        };
        if finished == Ok(()) {
            reading.await;
        }
    };
    if tokio::time::timeout(LAST_BYTES, finishing).await.is_err() {
        tracing::debug!("a client of a container did not close its connection");
    }
}

/// Sends what the process writes, and heartbeats.
async fn show(
    mut output: impl Stream<Item = Result<LogChunk, Error>> + Unpin,
    writer: &mut dyn OutputWriter,
    activity: &LastActivity,
    heartbeat_interval: Duration,
) -> End {
    let mut heartbeats = heartbeats(heartbeat_interval);
    loop {
        let chunk = tokio::select! {
            chunk = output.next() => chunk,
            _ = heartbeats.tick() => match writer.heartbeat().await {
                Ok(()) => continue,
                Err(ClientGone) => return End::Client,
            },
        };
        let Some(chunk) = chunk else { return End::Process };
        let written = match chunk {
            Ok(LogChunk::Stdout(bytes)) => writer.write(OutputStream::Stdout, bytes).await,
            Ok(LogChunk::Stderr(bytes)) => writer.write(OutputStream::Stderr, bytes).await,
            Err(error) => return End::Broken(error),
        };
        if written == Err(ClientGone) {
            return End::Client;
        }
        activity.touch();
    }
}

/// Gives the process what the client sends. One that reads no more is given no more; the client is not kept waiting.
async fn feed(
    stdin: Option<impl Stream<Item = bytes::Bytes> + Unpin>,
    mut input: impl AsyncWrite + Unpin,
    activity: &LastActivity,
) {
    let Some(mut stdin) = stdin else { return };
    let mut is_open = true;
    while let Some(bytes) = stdin.next().await {
        activity.touch();
        if is_open && let Err(error) = input.write_all(&bytes).await {
            tracing::debug!(%error, "a process takes no more input");
            is_open = false;
        }
        activity.touch();
    }
    if is_open && let Err(error) = input.shutdown().await {
        tracing::debug!(%error, "the input of a process could not be closed");
    }
}

async fn follow_size(mut size: watch::Receiver<Option<TerminalSize>>, control: &dyn ProcessControl) {
    while size.changed().await.is_ok() {
        let latest = *size.borrow_and_update();
        if let Some(latest) = latest
            && let Err(error) = control.resize(latest).await
        {
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }
}

/// Both, and never an end: whether a session ends is for others to say.
async fn beside<T>(one: impl Future<Output = ()>, other: impl Future<Output = ()>) -> T {
    tokio::join!(one, other);
    std::future::pending().await
}
