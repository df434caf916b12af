//! What the flags `--audit-…` say. The defaults are those of kube-apiserver.

use std::{path::PathBuf, str::FromStr, time::Duration};

/// What is audited, and where its events go.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// The policy; without one nothing is audited.
    pub policy_file: Option<PathBuf>,
    /// A file of events.
    pub log: Option<AuditLogOptions>,
    /// A server that events are sent to.
    pub webhook: Option<AuditWebhookOptions>,
}

/// A log of events.
#[derive(Clone, Debug)]
pub struct AuditLogOptions {
    /// Where it is.
    pub target: AuditLogTarget,
    /// Older files go after so many days; 0 keeps them.
    pub max_age_days: u32,
    /// How many older files are kept; 0 for all.
    pub max_backups: usize,
    /// How large the file becomes before another is begun, in MiB; 0 stands for 100.
    pub max_size_mib: u32,
    /// Whether older files are compressed with gzip.
    pub compress: bool,
    /// How an event is written.
    pub format: AuditLogFormat,
    /// Whether requests wait for it.
    pub mode: AuditMode,
    /// How many events wait to be written, in the mode [`AuditMode::Batch`].
    pub buffer_size: usize,
}

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditLogTarget {
    /// `-`
    Stdout,
    /// A file, which is rotated.
    File(PathBuf),
}

/// A server that events are sent to.
#[derive(Clone, Debug)]
pub struct AuditWebhookOptions {
    /// A kubeconfig that says where the server is, and how it and this service prove who they are.
    pub config_file: PathBuf,
    /// Whether requests wait for it.
    pub mode: AuditMode,
    /// How long it waits after a first attempt that failed.
    pub initial_backoff: Duration,
    /// In the mode [`AuditMode::Batch`].
    pub batch: BatchOptions,
}

/// How events are sent together.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// How many events wait to be sent; further ones are dropped.
    pub buffer_size: usize,
    /// The most events that are sent together.
    pub max_size: usize,
    /// The longest that an event waits for others.
    pub max_wait: Duration,
    /// How often they are sent at most; `None` for no limit.
    pub throttle: Option<BatchThrottle>,
    /// How many batches are under way at a time.
    pub at_a_time: usize,
}

/// How often batches are sent at most.
#[derive(Clone, Copy, Debug)]
pub struct BatchThrottle {
    /// A second, on average.
    pub qps: f64,
    /// At once, after a pause.
    pub burst: u32,
}

/// Whether requests wait for their events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditMode {
    /// No: events are kept in a buffer, and dropped where that is full.
    Batch,
    /// Yes; a request goes on where its event cannot be written.
    Blocking,
    /// Yes; a request whose first event cannot be written is refused.
    BlockingStrict,
}

/// How an event is written to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditLogFormat {
    /// As JSON, one event per line.
    Json,
    /// As one line of text.
    Legacy,
}

/// A mode or a format that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditOptionError {
    /// Of a mode.
    #[error("allowed modes are batch, blocking and blocking-strict")]
    Mode,
    /// Of a format.
    #[error("allowed formats are json and legacy")]
    Format,
}

impl FromStr for AuditMode {
    type Err = AuditOptionError;

    fn from_str(text: &str) -> Result<Self, AuditOptionError> {
        match text {
            "batch" => Ok(Self::Batch),
            "blocking" => Ok(Self::Blocking),
            "blocking-strict" => Ok(Self::BlockingStrict),
            _ => Err(AuditOptionError::Mode),
        }
    }
}

impl FromStr for AuditLogFormat {
    type Err = AuditOptionError;

    fn from_str(text: &str) -> Result<Self, AuditOptionError> {
        match text {
            "json" => Ok(Self::Json),
            "legacy" => Ok(Self::Legacy),
            _ => Err(AuditOptionError::Format),
        }
    }
}

impl From<&str> for AuditLogTarget {
    fn from(path: &str) -> Self {
        if path == "-" { Self::Stdout } else { Self::File(path.into()) }
    }
}

impl AuditLogOptions {
    /// The documented defaults.
    pub fn new(target: AuditLogTarget) -> Self {
        Self {
            target,
            max_age_days: 0,
            max_backups: 0,
            max_size_mib: 0,
            compress: false,
            format: AuditLogFormat::Json,
            mode: AuditMode::Blocking,
            buffer_size: BUFFER_SIZE,
        }
    }

    /// How its events are written together: all that wait.
    pub fn batch(&self) -> BatchOptions {
        let (buffer_size, max_wait) = (self.buffer_size, Duration::ZERO);
        BatchOptions { buffer_size, max_size: MOST_LINES, max_wait, throttle: None, at_a_time: 1 }
    }
}

impl AuditWebhookOptions {
    /// The documented defaults.
    pub fn new(config_file: PathBuf) -> Self {
        let initial_backoff = Duration::from_secs(10);
        Self { config_file, mode: AuditMode::Batch, initial_backoff, batch: BatchOptions::default() }
    }
}

impl Default for BatchOptions {
    /// Those of a webhook.
    fn default() -> Self {
        Self {
            buffer_size: BUFFER_SIZE,
            max_size: 400,
            max_wait: Duration::from_secs(30),
            throttle: Some(BatchThrottle::default()),
            at_a_time: SENT_AT_A_TIME,
        }
    }
}

impl Default for BatchThrottle {
    fn default() -> Self {
        Self { qps: 10.0, burst: 15 }
    }
}

const BUFFER_SIZE: usize = 10_000;
/// How many events a log writes at once.
const MOST_LINES: usize = 1000;
/// kube-apiserver has no limit here: with a server that does not answer, batches pile up.
const SENT_AT_A_TIME: usize = 16;
