//! Watches the file of `--encryption-provider-config`, and puts a good one in the place of the one before. A bad one is
//! told of and counted, and the one before stays.
//!
//! Good is a configuration that is valid and can read all that is stored: see [`Encryption::replace`].

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fairlead_encryption::{ConfigError, Configured, Encryption, FileConfiguration, ReplaceError};
use sha2::{Digest, Sha256};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Scrape,
    store::{CommitError, Store, StoredStates, seal::QuarantinedKeys},
};

/// How often the file is looked at. kube-apiserver is told of changes by the kernel, and looks once a minute beside.
const EVERY: Duration = Duration::from_secs(1);
/// How often a bad file is tried, told of and counted again.
const RETRY: Duration = Duration::from_secs(60);

/// Why a changed file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It lacks a key, or a key service of it does not work.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The store is closed.
    #[error("it cannot take the place of the one before")]
    Store(#[source] CommitError),
    /// The thread that read or used it panicked.
    #[error("it could not be read to its end")]
    Panicked,
}

/// The file and what counts of it.
pub struct EncryptionReload {
    path: PathBuf,
    encryption: Arc<Encryption>,
    counts: ReloadCounts,
}

/// What became of changed files. Names and labels are those of kube-apiserver.
struct ReloadCounts {
    succeeded: Outcome,
    failed: Outcome,
    /// Of the name of this server, as `sha256:…`.
    server_hash: String,
}

#[derive(Default)]
struct Outcome {
    count: AtomicU64,
    /// Unix seconds; 0 for never.
    last: AtomicU64,
}

/// A file that was refused: its digest, if it could be read, and when.
type Refused = (Option<String>, Instant);

impl EncryptionReload {
    /// Of a configuration that was read from a file.
    pub fn new(path: PathBuf, encryption: Arc<Encryption>) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let server_hash = format!("sha256:{}", hex::encode(Sha256::digest(format!("apiserver-{}", host.trim()))));
        let counts = ReloadCounts { succeeded: Outcome::default(), failed: Outcome::default(), server_hash };
        Self { path, encryption, counts }
    }

    /// Watches the file until `stop`.
    pub async fn run(self: Arc<Self>, store: Arc<dyn Store>, stop: CancellationToken) {
        let mut refused = None;
        let mut ticks = tokio::time::interval(EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look(&store, &mut refused).await;
        }
    }

    /// Looks at the file once.
    async fn look(&self, store: &Arc<dyn Store>, refused: &mut Option<Refused>) {
        let path = self.path.clone();
        // The disk may take long.
        let hashed = tokio::task::spawn_blocking(move || FileConfiguration::hash_of(&path).ok()).await;
        let found = hashed.unwrap_or_default();
        if found.as_deref() == Some(&*self.encryption.hash()) {
            *refused = None;
            return;
        }
        if refused.as_ref().is_some_and(|(known, at)| *known == found && at.elapsed() < RETRY) {
            return;
        }
        match self.load(store).await {
            Ok(()) => {
                *refused = None;
                self.counts.succeeded.add();
                tracing::info!(hash = self.encryption.hash(), "the changed encryption configuration is used");
            }
            Err(error) => {
                *refused = Some((found, Instant::now()));
                self.counts.failed.add();
                let cause: &dyn std::error::Error = &error;
                let path = self.path.display();
                tracing::error!(error = cause, %path, "the encryption configuration is not used; the one before stays");
            }
        }
    }

    async fn load(&self, store: &Arc<dyn Store>) -> Result<(), ReloadError> {
        let new = self.prepare(store).await?;
        self.replace(store, new).await
    }

    /// Reads the file, and refuses what could not be used now. Writes go on meanwhile.
    async fn prepare(&self, store: &Arc<dyn Store>) -> Result<Configured, ReloadError> {
        let (path, encryption, store) = (self.path.clone(), self.encryption.clone(), store.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            let config = FileConfiguration::read(&path, true)?;
            let new = encryption.prepare(&config)?;
            let stored = StoredStates { states: &[store.snapshot()], quarantined: &QuarantinedKeys::default() };
            encryption.check(&new, &stored)?;
            Ok(new)
        });
        prepared.await.unwrap_or(Err(ReloadError::Panicked))
    }

    /// Puts what was prepared in the place of the configuration before, while no write is under way: until then, writes
    /// seal values under keys that the new one may lack.
    async fn replace(&self, store: &Arc<dyn Store>, new: Configured) -> Result<(), ReloadError> {
        let (encryption, (told, outcome)) = (self.encryption.clone(), oneshot::channel());
        // Where nobody waits for the outcome any more, the next look finds what became of it.
        let work = move |stored: &StoredStates<'_>| drop(told.send(encryption.replace(new, stored)));
        store.between_writes(Box::new(work)).await.map_err(ReloadError::Store)?;
        Ok(outcome.await.map_err(|_| ReloadError::Panicked)??)
    }

    /// Tells of the counts.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let server = ("apiserver_id_hash", self.counts.server_hash.as_str());
        let labels = [[("status", "success"), server], [("status", "failure"), server]];
        let outcomes = [&self.counts.succeeded, &self.counts.failed];
        let told = || labels.iter().zip(outcomes).filter(|(_, outcome)| outcome.count.load(Ordering::Relaxed) > 0);
        scrape.counters(
            "apiserver_encryption_config_controller_automatic_reloads",
            "Total number of reload successes and failures of encryption configuration split by apiserver identity.",
            told().map(|(labels, outcome)| (&labels[..], outcome.count.load(Ordering::Relaxed))),
        )?;
        scrape.gauges(
            "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds",
            "Timestamp of the last successful or failed automatic reload of encryption configuration split by \
             apiserver identity.",
            told().map(|(labels, outcome)| (&labels[..], outcome.last.load(Ordering::Relaxed) as f64)),
        )?;
        let hash = self.encryption.hash();
        scrape.gauges(
            "apiserver_encryption_config_controller_last_config_info",
            "Information about the last applied encryption configuration with hash as label, split by apiserver \
             identity.",
            [(&[server, ("hash", hash.as_str())][..], 1.0)],
        )
    }
}

impl Outcome {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.store(now.as_secs(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
