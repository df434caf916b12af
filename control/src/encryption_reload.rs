//! What becomes of a changed file of `--encryption-provider-config`: a good one takes the place of the one before.
//!
//! Good is a configuration that is valid and can read all that is stored: see [`Encryption::replace`].

use std::{path::Path, sync::Arc, time::Duration};

use fairlead_encryption::{ConfigError, Configured, Encryption, FileConfiguration, ReplaceError};
use tokio::sync::oneshot;

use crate::{
    file_follower::{FollowedFile, ReloadMetrics, UnusedFile, UsesFile},
    store::{CommitError, Store, StoredStates, seal::QuarantinedKeys},
};

/// The file. It is looked at often: what becomes of a change is waited for while keys are rotated.
pub const ENCRYPTION: FollowedFile = FollowedFile {
    what: "encryption configuration",
    every: Duration::from_secs(1),
    metrics: Some(ReloadMetrics {
        subject: "encryption",
        reloads_help: "Total number of reload successes and failures of encryption configuration split by apiserver \
                   identity.",
        last_reload_help: "Timestamp of the last successful or failed automatic reload of encryption configuration split \
                       by apiserver identity.",
    }),
};

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

/// Who uses a changed file. Clones are the same.
#[derive(Clone)]
pub struct UsedEncryption {
    encryption: Arc<Encryption>,
    store: Arc<dyn Store>,
}

#[async_trait::async_trait]
impl UsesFile for UsedEncryption {
    /// What it lacks may be written with the old key until a minute later, and key services come back.
    async fn use_changed(&self, path: &Path, bytes: &[u8]) -> Result<(), UnusedFile> {
        self.load(path, bytes).await.map_err(UnusedFile::for_now)
    }
}

impl UsedEncryption {
    /// With what encrypts a store.
    pub fn new(encryption: Arc<Encryption>, store: Arc<dyn Store>) -> Self {
        Self { encryption, store }
    }

    async fn load(&self, path: &Path, bytes: &[u8]) -> Result<(), ReloadError> {
        if bytes.is_empty() {
            return Err(ConfigError::Empty(path.display().to_string()).into());
        }
        let new = self.prepare(FileConfiguration::parse(bytes, true)?).await?;
        self.replace(new).await
    }

    /// Refuses what could not be used now. Writes go on meanwhile.
    async fn prepare(&self, config: FileConfiguration) -> Result<Configured, ReloadError> {
        let (encryption, store) = (self.encryption.clone(), self.store.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            let new = encryption.prepare(&config)?;
            let stored = StoredStates { states: &[store.snapshot()], quarantined: &QuarantinedKeys::default() };
            encryption.check(&new, &stored)?;
            Ok(new)
        });
        prepared.await.unwrap_or(Err(ReloadError::Panicked))
    }

    /// Puts what was prepared in the place of the configuration before, while no write is under way: until then, writes
    /// seal values under keys that the new one may lack.
    async fn replace(&self, new: Configured) -> Result<(), ReloadError> {
        let (encryption, (told, outcome)) = (self.encryption.clone(), oneshot::channel());
        // Where nobody waits for the outcome any more, the next look finds what became of it.
        let work = move |stored: &StoredStates<'_>| drop(told.send(encryption.replace(new, stored)));
        self.store.between_writes(Box::new(work)).await.map_err(ReloadError::Store)?;
        Ok(outcome.await.map_err(|_| ReloadError::Panicked)??)
    }
}

#[cfg(test)]
mod tests;
