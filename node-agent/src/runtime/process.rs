//! A process of a container with its standard streams: a command that was started in the container, or the container's
//! main process.

use std::pin::Pin;

use futures::stream::BoxStream;
use serde::Deserialize;
use tokio::io::AsyncWrite;

use super::{Error, LogChunk};

/// Which streams are wanted, and whether they are a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// The process can read what is written to [`Process::input`].
    pub stdin: bool,
    /// Standard output comes.
    pub stdout: bool,
    /// Standard error comes; with a terminal it comes as standard output.
    pub stderr: bool,
    /// The streams are a terminal.
    pub tty: bool,
}

/// A process that runs, from outside.
pub struct Process {
    /// Its standard input; shut down, the process reads its end. Writes go nowhere where it was not asked for.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes, until it has ended.
    pub output: BoxStream<'static, Result<LogChunk, Error>>,
    /// All else.
    pub control: Box<dyn ProcessControl>,
}

/// What can be done with a process that runs.
#[async_trait::async_trait]
pub trait ProcessControl: Send + Sync {
    /// Changes the size of its terminal.
    async fn resize(&self, size: TerminalSize) -> Result<(), Error>;

    /// How it ended, asked after its output has ended. `None` where it is not the caller's to know: of a container's
    /// main process.
    async fn exit_code(&mut self) -> Result<Option<i64>, Error>;

    /// Kills a command that still runs, with all that it started; a container's main process goes on.
    async fn end(&mut self);
}

/// Of a terminal. Spelled as `remotecommand.TerminalSize` of client-go is, whose fields have no tags.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    #[serde(rename = "Width", alias = "width")]
    pub width: u16,
    /// Lines.
    #[serde(rename = "Height", alias = "height")]
    pub height: u16,
}
