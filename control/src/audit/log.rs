//! Events as lines of a file, or of standard output.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    backend::{AuditBackend, AuditWriteError},
    event::AuditEvent,
    metrics::AuditMetrics,
    options::{AuditLogFormat, AuditLogOptions, AuditLogTarget},
    retention::BackupRetention,
    rotation::RotatingFile,
};

/// The log.
pub struct AuditLog {
    format: AuditLogFormat,
    /// One writer at a time, in the order in which they come.
    out: Arc<Mutex<LogOutput>>,
}

enum LogOutput {
    Stream(Box<dyn Write + Send>),
    File { file: RotatingFile, backups: BackupTidying, metrics: Arc<AuditMetrics> },
}

/// Has older files removed and compressed, beside the writing of events.
struct BackupTidying {
    due: Arc<Notify>,
    /// When that was asked for since a disk was full or broken.
    failed_at: Option<Timestamp>,
    /// Ends the task with the log.
    _end: DropGuard,
}

/// Of a file for which no size is given.
const DEFAULT_SIZE_MIB: u32 = 100;
/// How often older files are tidied up while the log cannot be written.
const TIDIED_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(60);

impl AuditLog {
    /// Opens it. What an earlier service left of older files is tidied up.
    ///
    /// # Errors
    /// What the kernel says of the file.
    pub fn open(options: &AuditLogOptions, metrics: Arc<AuditMetrics>) -> io::Result<Self> {
        let out = match &options.target {
            AuditLogTarget::Stdout => LogOutput::Stream(Box::new(io::stdout())),
            AuditLogTarget::File(path) => {
                let mebibytes = if options.max_size_mib == 0 { DEFAULT_SIZE_MIB } else { options.max_size_mib };
                let file = RotatingFile::open(path, u64::from(mebibytes) << 20)?;
                if file.is_open_to_others()? {
                    tracing::warn!(path = %path.display(), "others may read or write the audit log: give it mode 0600");
                }
                let AuditLogOptions { max_age_days, max_backups, compress, .. } = *options;
                let retention = BackupRetention { max_age_days, max_backups, compress };
                LogOutput::File { file, backups: BackupTidying::start(path.clone(), retention), metrics }
            }
        };
        Ok(Self { format: options.format, out: Arc::new(Mutex::new(out)) })
    }
}

impl BackupTidying {
    fn start(path: PathBuf, retention: BackupRetention) -> Self {
        let (due, end) = (Arc::new(Notify::new()), CancellationToken::new());
        due.notify_one();
        let (was_due, ended) = (due.clone(), end.clone());
        tokio::spawn(async move {
            while ended.run_until_cancelled(was_due.notified()).await.is_some() {
                let path = path.clone();
                if let Err(error) = blocking(move || retention.apply(&path, Timestamp::now())).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot tidy up older audit logs");
                }
            }
        });
        Self { due, failed_at: None, _end: end.drop_guard() }
    }

    /// The disk does not do as it should, perhaps for want of space, which older files may have. Their time may have
    /// come although there is no new file: but not each line asks for it.
    fn after_failure(&mut self, now: Timestamp) {
        if self.failed_at.is_none_or(|at| now.duration_since(at).abs() >= TIDIED_AGAIN_AFTER) {
            self.failed_at = Some(now);
            self.due.notify_one();
        }
    }
}

impl LogOutput {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(out) => {
                out.write_all(lines)?;
                out.flush()
            }
            Self::File { file, backups, metrics } => {
                let now = Timestamp::now();
                match file.make_room(lines.len(), now) {
                    Ok(true) => backups.due.notify_one(),
                    Ok(false) => {}
                    Err(error) => {
                        metrics.not_rotated();
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "the audit log cannot be replaced by a new file; it grows");
                        backups.after_failure(now);
                    }
                }
                file.append(lines).inspect_err(|_| backups.after_failure(now))
            }
        }
    }
}

#[async_trait::async_trait]
impl AuditBackend for AuditLog {
    fn plugin(&self) -> &'static str {
        "log"
    }

    fn encode(&self, event: &AuditEvent) -> Bytes {
        match self.format {
            AuditLogFormat::Legacy => format!("{}\n", event.to_line()).into(),
            AuditLogFormat::Json => {
                let mut text = Vec::with_capacity(event.text_bytes());
                text.extend_from_slice(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#);
                // The event goes on with the object that was begun: a comma takes the place of its brace.
                let begin = text.len();
                event.write_json(&mut text);
                text[begin] = b',';
                text.push(b'\n');
                text.shrink_to_fit();
                text.into()
            }
        }
    }

    async fn write(&self, events: &[Bytes]) -> Result<(), AuditWriteError> {
        let lines = match events {
            [line] => line.clone(),
            lines => lines.concat().into(),
        };
        // Standard output, too: where its reader stops, one thread waits for it.
        let mut out = self.out.clone().lock_owned().await;
        blocking(move || out.append(&lines)).await
    }
}

/// A disk may take its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, AuditWriteError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.unwrap_or_else(|error| Err(io::Error::other(error)))?)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    /// A pipe whose reader has stopped: it takes a text for each word from the reader.
    struct Pipe {
        entered: Arc<AtomicUsize>,
        told: mpsc::Sender<()>,
        read: mpsc::Receiver<()>,
    }

    impl Write for Pipe {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.entered.fetch_add(1, Ordering::SeqCst);
            self.told.send(()).unwrap();
            self.read.recv().map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_that_stops_holds_up_one_thread_alone() {
        let ((told, begun), (reads, read)) = (mpsc::channel(), mpsc::channel());
        let entered = Arc::new(AtomicUsize::new(0));
        let pipe = Pipe { entered: entered.clone(), told, read };
        let out = Arc::new(Mutex::new(LogOutput::Stream(Box::new(pipe))));
        let log = Arc::new(AuditLog { format: AuditLogFormat::Json, out });
        let line = [Bytes::from_static(b"{}\n")];
        let mut writes: Vec<_> = (0..10).map(|_| Box::pin(log.write(&line))).collect();
        for write in &mut writes {
            assert!(futures::poll!(write.as_mut()).is_pending());
        }
        begun.recv().unwrap();
        for write in &mut writes {
            assert!(futures::poll!(write.as_mut()).is_pending());
        }
        assert_eq!(entered.load(Ordering::SeqCst), 1, "the others wait without a thread");
        for write in writes {
            reads.send(()).unwrap();
            write.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_an_earlier_service_left_is_tidied_up_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let [old, new] = ["audit-2026-01-02T03-04-05.000.log", "audit-2026-01-03T03-04-05.000.log"];
        let part = format!("{new}.gz.unfinished");
        for name in [old, new, &part] {
            std::fs::write(dir.path().join(name), "text").unwrap();
        }
        let options = AuditLogOptions { max_backups: 1, ..AuditLogOptions::new(AuditLogTarget::File(path)) };
        let _log = AuditLog::open(&options, Arc::default()).unwrap();
        let tidied = async {
            while [old, &part].iter().any(|name| dir.path().join(name).exists()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), tidied).await.expect("it is tidied up");
        assert!(dir.path().join(new).exists());
    }

    /// A log whose tidying is asked for alone.
    fn log_file(path: &std::path::Path, max_size: u64) -> (LogOutput, Arc<Notify>) {
        let due = Arc::new(Notify::new());
        let backups = BackupTidying { due: due.clone(), failed_at: None, _end: CancellationToken::new().drop_guard() };
        let file = RotatingFile::open(path, max_size).unwrap();
        (LogOutput::File { file, backups, metrics: Arc::default() }, due)
    }

    fn is_due(due: &Notify) -> bool {
        futures::FutureExt::now_or_never(due.notified()).is_some()
    }

    #[test]
    fn older_files_are_tidied_up_where_the_disk_is_full() {
        let (mut full, due) = log_file(std::path::Path::new("/dev/full"), 1 << 20);
        assert!(full.append(b"one\n").is_err() && is_due(&due));
        assert!(full.append(b"two\n").is_err() && !is_due(&due), "not with each line");
        let LogOutput::File { backups, .. } = &mut full else { panic!("it is a file") };
        backups.after_failure(Timestamp::now().checked_add(TIDIED_AGAIN_AFTER).unwrap());
        assert!(is_due(&due));

        // No new file can be made: its directory is gone.
        let dir = tempfile::tempdir().unwrap();
        let (mut log, due) = log_file(&dir.path().join("audit.log"), 5);
        log.append(b"one\n").unwrap();
        assert!(!is_due(&due));
        drop(dir);
        log.append(b"two\n").unwrap();
        assert!(is_due(&due));
    }
}
