//! Events as lines of a file, or of standard output.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::{
    backend::{AuditBackend, AuditWriteError},
    event::AuditEvent,
    options::{AuditLogFormat, AuditLogOptions, AuditLogTarget},
    rotation::{BackupRetention, RotatingFile},
};

/// The log.
pub struct AuditLog {
    format: AuditLogFormat,
    out: LogOutput,
}

enum LogOutput {
    Stdout,
    File {
        path: PathBuf,
        /// One writer at a time, in the order in which they come.
        file: Arc<Mutex<RotatingFile>>,
        retention: BackupRetention,
        /// Held while older files are removed and compressed.
        tidying: Arc<Mutex<()>>,
    },
}

/// Of a file for which no size is given.
const DEFAULT_SIZE_MIB: u32 = 100;

impl AuditLog {
    /// Opens it.
    ///
    /// # Errors
    /// What the kernel says of the file.
    pub fn open(options: &AuditLogOptions) -> io::Result<Self> {
        let format = options.format;
        let AuditLogTarget::File(path) = &options.target else { return Ok(Self { format, out: LogOutput::Stdout }) };
        let mebibytes = if options.max_size_mib == 0 { DEFAULT_SIZE_MIB } else { options.max_size_mib };
        let file = RotatingFile::open(path, u64::from(mebibytes) << 20)?;
        let AuditLogOptions { max_age_days, max_backups, compress, .. } = *options;
        let retention = BackupRetention { max_age_days, max_backups, compress };
        let (path, file, tidying) = (path.clone(), Arc::new(Mutex::new(file)), Arc::default());
        Ok(Self { format, out: LogOutput::File { path, file, retention, tidying } })
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
                let json = event.to_json();
                [br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#, &json[1..], b"\n"].concat().into()
            }
        }
    }

    async fn write(&self, events: &[Bytes]) -> Result<(), AuditWriteError> {
        let lines = match events {
            [line] => line.clone(),
            lines => lines.concat().into(),
        };
        let LogOutput::File { path, file, retention, tidying } = &self.out else {
            return blocking(move || io::stdout().lock().write_all(&lines)).await;
        };
        let mut file = file.clone().lock_owned().await;
        let rotated = blocking(move || file.append(&lines, Timestamp::now())).await?;
        if rotated && let Ok(held) = tidying.clone().try_lock_owned() {
            let (path, retention) = (path.clone(), *retention);
            tokio::task::spawn_blocking(move || {
                let _held = held;
                if let Err(error) = retention.apply(&path, Timestamp::now()) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, path = %path.display(), "cannot tidy up older audit logs");
                }
            });
        }
        Ok(())
    }
}

/// A disk may take its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, AuditWriteError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.unwrap_or_else(|error| Err(io::Error::other(error)))?)
}
