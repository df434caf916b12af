//! What events are written to.

use std::io;

use bytes::Bytes;

use super::event::AuditEvent;

/// A log, or a server that collects events.
#[async_trait::async_trait]
pub trait AuditBackend: Send + Sync + 'static {
    /// Its name in metrics: `log`, `webhook`.
    fn plugin(&self) -> &'static str;

    /// An event as it is written.
    fn encode(&self, event: &AuditEvent) -> Bytes;

    /// Writes encoded events, in their order. Each is written whole, or this fails.
    async fn write(&self, events: &[Bytes]) -> Result<(), AuditWriteError>;
}

/// Why events could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditWriteError {
    /// Of a log: the disk is full, or does not work.
    #[error("cannot write the audit log")]
    Log(#[from] io::Error),
    /// The webhook could not be asked.
    #[error("cannot send events to the audit webhook")]
    Webhook(#[source] Box<kube::Error>),
    /// The webhook did not answer in time.
    #[error("the audit webhook did not answer in time")]
    Timeout,
    /// The webhook refused them.
    #[error("the audit webhook answered with the status code {0}")]
    Answer(u16),
    /// The buffer of events is full: events come faster than they are written.
    #[error("audit buffer queue blocked")]
    BufferFull,
    /// The service stops.
    #[error("audit backend shut down")]
    ShutDown,
}
