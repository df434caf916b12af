//! Processes in memory for tests of streams: each is a few futures, and is counted until it is gone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio_util::io::ReaderStream;

use super::{Error, LogChunk, Process, ProcessControl, StreamOptions, TerminalSize};

/// The processes of a fake runtime. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct FakeProcesses {
    running: Arc<AtomicUsize>,
    killed: Arc<AtomicUsize>,
    sizes: Arc<Mutex<Vec<TerminalSize>>>,
}

impl FakeProcesses {
    /// How many run.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// How many were killed.
    pub fn killed(&self) -> usize {
        self.killed.load(Ordering::SeqCst)
    }

    /// Sizes that terminals were given.
    pub fn sizes(&self) -> Vec<TerminalSize> {
        self.sizes.lock().clone()
    }

    /// `cat` writes what it reads; `both` writes to both outputs and ends with 3; `flood` writes for ever; `hang` never
    /// writes; `exit` ends at once.
    pub fn start(&self, command: &[String], streams: StreamOptions) -> Result<Process, Error> {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let (input, output) = tokio::io::simplex(64 * 1024);
        let echo = ReaderStream::new(input).map(|bytes| Ok(LogChunk::Stdout(bytes.expect("memory does not fail"))));
        let (output_chunks, code) = match words.as_slice() {
            ["cat"] => (echo.boxed(), 0),
            ["both"] => {
                let chunks = [LogChunk::Stdout("out".into()), LogChunk::Stderr("err".into())];
                (stream::iter(chunks.map(Ok)).boxed(), 3)
            }
            ["flood"] => (stream::repeat_with(|| Ok(LogChunk::Stdout(Bytes::from(vec![0; 32 * 1024])))).boxed(), 0),
            ["hang"] => (stream::pending().boxed(), 0),
            ["exit"] => (stream::empty().boxed(), 0),
            other => {
                let message = format!("exec: {:?}: executable file not found in $PATH", other.join(" "));
                return Err(Error::Refused { operation: "start a command in the container", message });
            }
        };
        assert!(streams.stdin || streams.stdout || streams.stderr, "one stream at least");
        self.running.fetch_add(1, Ordering::SeqCst);
        let control = FakeControl { processes: self.clone(), code: Some(code), has_ended: false };
        Ok(Process { input: Box::pin(output), output: output_chunks, control: Box::new(control) })
    }

    /// A main process that is a `cat`.
    pub fn attach(&self, streams: StreamOptions) -> Result<Process, Error> {
        self.start(&["cat".to_owned()], streams)
    }
}

struct FakeControl {
    processes: FakeProcesses,
    code: Option<i64>,
    has_ended: bool,
}

#[async_trait::async_trait]
impl ProcessControl for FakeControl {
    async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        self.processes.sizes.lock().push(size);
        Ok(())
    }

    async fn exit_code(&mut self) -> Result<Option<i64>, Error> {
        self.has_ended = true;
        Ok(self.code)
    }

    async fn end(&mut self) {
        if !self.has_ended {
            self.has_ended = true;
            self.processes.killed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        assert!(self.has_ended || std::thread::panicking(), "a process is seen to end, or ended");
        self.processes.running.fetch_sub(1, Ordering::SeqCst);
    }
}
