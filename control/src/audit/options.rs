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
    /// How large an event may be; `None` for any size.
    pub truncate: Option<TruncateOptions>,
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
    /// How large an event may be; `None` for any size.
    pub truncate: Option<TruncateOptions>,
}

/// How large events may be. What is larger is written without the objects in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TruncateOptions {
    /// Bytes of one event.
    pub max_event_size: usize,
    /// Bytes of the events that are written together.
    pub max_batch_size: usize,
}

/// The version of events: there is no other that Kubernetes serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditVersion;

/// How events are sent together.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// How many events wait to be sent; further ones are dropped.
    pub buffer_size: usize,
    /// The most events that are sent together.
    pub max_size: usize,
    /// The most bytes of those; one event alone may have more.
    pub max_bytes: usize,
    /// The longest that an event waits for others.
    pub max_wait: Duration,
    /// How often they are sent at most; `None` for no limit.
    pub throttle: Option<BatchThrottle>,
    /// How many batches are under way at a time; `None` for as many as there is memory for.
    pub at_a_time: Option<usize>,
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

/// A mode, format, version or size that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditOptionError {
    /// Of a mode.
    #[error("allowed modes are batch, blocking and blocking-strict")]
    Mode,
    /// Of a format.
    #[error("allowed formats are json and legacy")]
    Format,
    /// Of a version.
    #[error("invalid group version, allowed versions are [\"{VERSION}\"]")]
    Version,
    /// Of the size of an event.
    #[error("invalid audit truncate {plugin} max event size {size}, must be a positive number")]
    EventSize {
        /// `log` or `webhook`.
        plugin: &'static str,
        /// What the flag says.
        size: i64,
    },
    /// Of the size of events that are written together.
    #[error(
        "invalid audit truncate {plugin} max batch size {size}, must be greater than max event size ({event_size})"
    )]
    BatchSize {
        /// `log` or `webhook`.
        plugin: &'static str,
        /// What the flag says.
        size: i64,
        /// What that of an event says.
        event_size: i64,
    },
}

/// The version of events and policies.
pub const VERSION: &str = "audit.k8s.io/v1";

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

impl FromStr for AuditVersion {
    type Err = AuditOptionError;

    fn from_str(text: &str) -> Result<Self, AuditOptionError> {
        if text == VERSION { Ok(Self) } else { Err(AuditOptionError::Version) }
    }
}

impl TruncateOptions {
    /// Of the flags' numbers, and the defaults of those that are not given.
    ///
    /// # Errors
    /// What Kubernetes says of sizes that cannot be.
    pub fn of_flags(
        plugin: &'static str,
        event_size: Option<i64>,
        batch_size: Option<i64>,
    ) -> Result<Self, AuditOptionError> {
        let defaults = Self::default();
        let flag = |given: Option<i64>, default: usize| given.unwrap_or(i64::try_from(default).unwrap_or(i64::MAX));
        let event_size = flag(event_size, defaults.max_event_size);
        let batch_size = flag(batch_size, defaults.max_batch_size);
        let positive = |size: i64| usize::try_from(size).ok().filter(|size| *size > 0);
        let max_event_size = positive(event_size).ok_or(AuditOptionError::EventSize { plugin, size: event_size })?;
        let max_batch_size = positive(batch_size).filter(|size| *size >= max_event_size);
        let max_batch_size =
            max_batch_size.ok_or(AuditOptionError::BatchSize { plugin, size: batch_size, event_size })?;
        Ok(Self { max_event_size, max_batch_size })
    }
}

impl Default for TruncateOptions {
    fn default() -> Self {
        Self { max_event_size: 100 << 10, max_batch_size: 10 << 20 }
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
            truncate: None,
        }
    }

    /// How its events are written together: all that wait.
    pub fn batch(&self) -> BatchOptions {
        let buffer_size = if self.mode == AuditMode::Batch { self.buffer_size } else { ALL_THAT_WAIT };
        let most = self.truncate.map_or(usize::MAX, |truncate| truncate.max_batch_size);
        BatchOptions {
            buffer_size,
            max_size: MOST_LINES,
            max_bytes: MOST_BYTES_OF_LINES.min(most),
            max_wait: Duration::ZERO,
            throttle: None,
            at_a_time: Some(1),
        }
    }
}

impl AuditWebhookOptions {
    /// The documented defaults.
    pub fn new(config_file: PathBuf) -> Self {
        let initial_backoff = Duration::from_secs(10);
        let (mode, batch) = (AuditMode::Batch, BatchOptions::default());
        Self { config_file, mode, initial_backoff, batch, truncate: None }
    }

    /// How its events are sent together. Where requests wait for them: all that wait.
    pub fn batch(&self) -> BatchOptions {
        let most = self.truncate.map_or(usize::MAX, |truncate| truncate.max_batch_size);
        let batch = BatchOptions { max_bytes: self.batch.max_bytes.min(most), ..self.batch };
        match self.mode {
            AuditMode::Batch => batch,
            AuditMode::Blocking | AuditMode::BlockingStrict => BatchOptions {
                buffer_size: ALL_THAT_WAIT,
                max_wait: Duration::ZERO,
                throttle: None,
                at_a_time: Some(SENT_AT_A_TIME),
                ..batch
            },
        }
    }
}

impl Default for BatchOptions {
    /// Those of a webhook.
    fn default() -> Self {
        Self {
            buffer_size: BUFFER_SIZE,
            max_size: 400,
            max_bytes: MOST_BYTES_SENT,
            max_wait: Duration::from_secs(30),
            throttle: Some(BatchThrottle::default()),
            at_a_time: None,
        }
    }
}

impl Default for BatchThrottle {
    fn default() -> Self {
        Self { qps: 10.0, burst: 15 }
    }
}

const BUFFER_SIZE: usize = 10_000;
/// Those that requests wait for are bounded by the memory of the requests.
const ALL_THAT_WAIT: usize = usize::MAX;
/// How many events a log writes at once, and of how many bytes: no log file may be smaller.
const MOST_LINES: usize = 1000;
const MOST_BYTES_OF_LINES: usize = 1 << 20;
/// kube-apiserver has no limit here; a list of events is copied when it is sent.
const MOST_BYTES_SENT: usize = 10 << 20;
/// How many lists are on their way to a webhook at a time.
pub const SENT_AT_A_TIME: usize = 16;
