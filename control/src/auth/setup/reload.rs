//! Watches a configuration file, and uses a good one as it changes. A bad one is told of and counted, and the one
//! before stays.
//!
//! Source: `ApplyTo` of kube-apiserver's authentication options and `reload.go` of its authorizer; the metrics have
//! their names.

use std::{
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::configuration::{self, ConfigurationFileError},
    metrics::Scrape,
    webhook::KubeconfigSetupError,
};

/// How often the file is looked at. kube-apiserver does once a minute, and when the system tells it.
const EVERY: Duration = Duration::from_secs(10);
/// How often something is tried again that may be better by itself.
const RETRY: Duration = Duration::from_secs(60);

/// Why a changed file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationReloadError {
    /// It will never be good.
    #[error(transparent)]
    Refused(#[from] ConfigurationFileError),
    /// A file that it names is not good now.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigSetupError),
    /// Its issuers do not answer.
    #[error("oidc: authenticators for the issuers {0:?} are not initialized")]
    NotReady(Vec<String>),
}

impl ConfigurationReloadError {
    /// Whether the same file will never be used.
    fn is_final(&self) -> bool {
        match self {
            Self::Refused(ConfigurationFileError::Read { .. }) | Self::Kubeconfig(_) | Self::NotReady(_) => false,
            Self::Refused(_) => true,
        }
    }
}

/// Uses the text of a changed file.
#[async_trait::async_trait]
pub trait UsesConfiguration: Send + Sync + 'static {
    /// Uses it, or says why not.
    async fn use_changed(&self, bytes: &[u8]) -> Result<(), ConfigurationReloadError>;
}

/// What a file is about, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationSubject {
    /// Who may come in.
    Authentication,
    /// What they may do.
    Authorization,
}

/// A file, who uses it, and what became of its changes.
pub struct ConfigurationReload {
    subject: ConfigurationSubject,
    path: PathBuf,
    user: Box<dyn UsesConfiguration>,
    /// Of the file that is used.
    used: Mutex<String>,
    succeeded: ReloadCount,
    failed: ReloadCount,
    server_hash: String,
}

#[derive(Default)]
struct ReloadCount {
    count: AtomicU64,
    /// Unix seconds; 0 for never.
    last: AtomicU64,
}

/// What was made of the file as it was seen last.
struct Seen {
    hash: String,
    /// When it is looked at again though it has not changed; never where that cannot help.
    again_at: Option<Instant>,
}

impl ConfigurationSubject {
    fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
        }
    }
}

impl ConfigurationReload {
    /// Of a file whose text is used.
    pub fn new(subject: ConfigurationSubject, path: PathBuf, used: &[u8], user: impl UsesConfiguration) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let server_hash = format!("sha256:{}", hex::encode(Sha256::digest(format!("apiserver-{}", host.trim()))));
        let (succeeded, failed) = (ReloadCount::default(), ReloadCount::default());
        let used = Mutex::new(configuration::hash(used));
        Self { subject, path, user: Box::new(user), used, succeeded, failed, server_hash }
    }

    /// Watches the file until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut seen = None;
        let mut ticks = tokio::time::interval(EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if stop.run_until_cancelled(self.look(&mut seen, Instant::now())).await.is_none() {
                return;
            }
        }
    }

    /// Looks at the file once.
    async fn look(&self, seen: &mut Option<Seen>, now: Instant) {
        let read = configuration::read(&self.path);
        let hash = read.as_ref().map(|bytes| configuration::hash(bytes)).unwrap_or_default();
        if hash == *self.used.lock() {
            *seen = None;
            return;
        }
        let is_due = |seen: &Seen| seen.hash != hash || seen.again_at.is_some_and(|at| at <= now);
        if !seen.as_ref().is_none_or(is_due) {
            return;
        }
        let used = match read {
            Ok(bytes) => self.user.use_changed(&bytes).await,
            Err(error) => Err(error.into()),
        };
        let what = self.subject.name();
        match used {
            Ok(()) => {
                tracing::info!(hash, "the changed {what} configuration is used");
                *self.used.lock() = hash;
                *seen = None;
                self.succeeded.add();
            }
            Err(error) => {
                let is_final = error.is_final();
                let again_at = if is_final { None } else { now.checked_add(RETRY) };
                *seen = Some(Seen { hash, again_at });
                self.failed.add();
                let cause: &dyn std::error::Error = &error;
                let path = self.path.display();
                tracing::error!(error = cause, %path, "the {what} configuration is not used; the one before stays");
            }
        }
    }

    /// Tells of the counts.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let what = self.subject.name();
        let metric = |name: &str| format!("apiserver_{what}_config_controller_{name}");
        let server = ("apiserver_id_hash", self.server_hash.as_str());
        let labels = [[("status", "success"), server], [("status", "failure"), server]];
        let counts = [&self.succeeded, &self.failed];
        let told = || labels.iter().zip(counts).filter(|(_, count)| count.count.load(Ordering::Relaxed) > 0);
        scrape.counters(
            &metric("automatic_reloads"),
            &format!(
                "Total number of automatic reloads of {what} configuration split by status and apiserver identity."
            ),
            told().map(|(labels, count)| (&labels[..], count.count.load(Ordering::Relaxed))),
        )?;
        scrape.gauges(
            &metric("automatic_reload_last_timestamp_seconds"),
            &format!(
                "Timestamp of the last automatic reload of {what} configuration split by status and apiserver identity."
            ),
            told().map(|(labels, count)| (&labels[..], count.last.load(Ordering::Relaxed) as f64)),
        )?;
        let hash = self.used.lock().clone();
        scrape.gauges(
            &metric("last_config_info"),
            &format!(
                "Information about the last applied {what} configuration with hash as label, split by apiserver \
                 identity."
            ),
            [(&[server, ("hash", hash.as_str())][..], 1.0)],
        )
    }
}

impl ReloadCount {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.store(now.as_secs(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;

    /// Takes texts that say `good`, and waits for others that say `later`.
    #[derive(Clone, Default)]
    struct Uses(Arc<Mutex<Vec<String>>>);

    #[async_trait::async_trait]
    impl UsesConfiguration for Uses {
        async fn use_changed(&self, bytes: &[u8]) -> Result<(), ConfigurationReloadError> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.0.lock().push(text.clone());
            match &*text {
                "bad" => Err(ConfigurationFileError::Empty.into()),
                "later" => Err(ConfigurationReloadError::NotReady(Vec::new())),
                _ => Ok(()),
            }
        }
    }

    #[tokio::test]
    async fn a_bad_file_is_tried_once_and_one_that_may_become_good_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let uses = Uses::default();
        let reload =
            ConfigurationReload::new(ConfigurationSubject::Authentication, file.path().into(), b"first", uses.clone());
        let (mut seen, now) = (None, Instant::now());
        let tried = || std::mem::take(&mut *uses.0.lock());
        for (text, expected) in
            [("first", 0), ("bad", 1), ("bad", 0), ("later", 1), ("later", 0), ("good", 1), ("good", 0)]
        {
            fs::write(file.path(), text).unwrap();
            reload.look(&mut seen, now).await;
            assert_eq!(tried().len(), expected, "{text}");
        }
        let used = configuration::hash(b"good");
        assert_eq!(*reload.used.lock(), used);
        fs::write(file.path(), "later").unwrap();
        reload.look(&mut seen, now).await;
        reload.look(&mut seen, now + RETRY).await;
        assert_eq!((tried().len(), &*reload.used.lock()), (2, &used), "the good one stays");
        let counts = [&reload.succeeded, &reload.failed].map(|count| count.count.load(Ordering::Relaxed));
        assert_eq!(counts, [1, 4]);
        let metrics = crate::metrics::Metrics::default();
        metrics.add(move |scrape| reload.tell(scrape));
        let text = metrics.render().unwrap();
        let failures = "apiserver_authentication_config_controller_automatic_reloads_total{status=\"failure\"";
        assert!(text.contains(failures) && text.contains(&used), "{text}");
    }
}
