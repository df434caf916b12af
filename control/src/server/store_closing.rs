//! The end of a stop: the store's files are closed, with all that the log has in the tables.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::store::Store;

/// How long a stop waits for the last users of the store, and then for its files to be closed. What takes longer is
/// done a part at a time, and each part stays: the next stop goes on.
const LAST_USERS: Duration = Duration::from_secs(1);
const LAST_CHECKPOINT: Duration = Duration::from_secs(30);

/// What tells that the store's files are closed.
pub struct StoreClosing {
    in_use: Weak<dyn Store>,
    closed: watch::Receiver<()>,
}

impl StoreClosing {
    /// `closed` ends when the files of `store` are closed.
    pub fn of(store: &Arc<dyn Store>, closed: watch::Receiver<()>) -> Self {
        Self { in_use: Arc::downgrade(store), closed }
    }

    /// Waits until the store is closed. Whoever keeps a client of a stopped control service keeps it open.
    pub async fn wait(mut self) {
        // Its sender is dropped, and never sends.
        if timeout(LAST_USERS, self.closed.changed()).await.is_ok() {
            return;
        }
        if self.in_use.strong_count() > 0 {
            tracing::debug!("the store is still in use; it is closed with the program");
        } else if timeout(LAST_CHECKPOINT, self.closed.changed()).await.is_err() {
            tracing::warn!(
                "the store's tables take long to write; what they lack is in the log, and the next stop goes on"
            );
        }
    }
}
