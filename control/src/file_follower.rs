//! Follows a file that the configuration names, and has a changed one used. One that cannot be used is told of and
//! counted, and the one before stays. What a file says, and whether it is good, its user knows.
//!
//! Source: `ApplyTo` of kube-apiserver's authentication options, `reload.go` of its authorizer and the controller of
//! its encryption configuration, whose metrics these are.

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::metrics::Scrape;

/// How often something is tried again that may be better by itself.
pub const RETRY: Duration = Duration::from_secs(60);

/// Uses the text of a changed file.
#[async_trait::async_trait]
pub trait UsesFile: Send + Sync + 'static {
    /// Uses it, or says why not.
    async fn use_changed(&self, path: &Path, bytes: &[u8]) -> Result<(), UnusedFile>;
}

/// Why a changed file is not used.
#[derive(Debug, thiserror::Error)]
pub enum UnusedFile {
    /// The same text will never be used.
    #[error(transparent)]
    ForGood(Box<dyn Error + Send + Sync>),
    /// The same text may be used later.
    #[error(transparent)]
    ForNow(Box<dyn Error + Send + Sync>),
}

/// The file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
struct ReadError {
    path: String,
    source: io::Error,
}

/// What a file is, and how often it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct FollowedFile {
    /// `authentication configuration`
    pub what: &'static str,
    /// How often it is looked at. kube-apiserver does once a minute, and when the system tells it.
    pub every: Duration,
    /// How metrics tell of it, if they do.
    pub metrics: Option<ReloadMetrics>,
}

/// How metrics tell of the changes of a file.
#[derive(Clone, Copy, Debug)]
pub struct ReloadMetrics {
    /// In their names: `authentication`.
    pub subject: &'static str,
    /// What the count of its changes says of itself.
    pub reloads_help: &'static str,
    /// What the time of the last one says of itself.
    pub last_reload_help: &'static str,
}

/// A file, who uses it, and what became of its changes.
pub struct FileFollower {
    file: FollowedFile,
    path: PathBuf,
    user: Box<dyn UsesFile>,
    /// The digest of the text that is used.
    used: Mutex<String>,
    succeeded: ReloadCount,
    failed: ReloadCount,
    /// Of the name of this server, as `sha256:…`.
    server_hash: String,
}

#[derive(Default)]
struct ReloadCount {
    count: AtomicU64,
    /// Unix seconds; 0 for never.
    last: AtomicU64,
}

/// A text that was not used.
pub struct SeenFile {
    hash: String,
    /// When it is looked at again though it has not changed; never where that cannot help.
    again_at: Option<Instant>,
}

/// `sha256:` and the digest of a text in hex, as Kubernetes' metrics name it.
pub fn hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl UnusedFile {
    /// The same text will never be used.
    pub fn for_good(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::ForGood(source.into())
    }

    /// The same text may be used later.
    pub fn for_now(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::ForNow(source.into())
    }
}

impl FileFollower {
    /// Of a file whose text with the digest `used` is used.
    pub fn new(file: FollowedFile, path: PathBuf, used: String, user: impl UsesFile) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let server_hash = hash(format!("apiserver-{}", host.trim()).as_bytes());
        let (succeeded, failed) = (ReloadCount::default(), ReloadCount::default());
        Self { file, path, user: Box::new(user), used: Mutex::new(used), succeeded, failed, server_hash }
    }

    /// Watches the file until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut seen = None;
        let mut ticks = tokio::time::interval(self.file.every);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if stop.run_until_cancelled(self.look(&mut seen, Instant::now())).await.is_none() {
                return;
            }
        }
    }

    /// Looks at the file once.
    pub async fn look(&self, seen: &mut Option<SeenFile>, now: Instant) {
        let read = self.read().await;
        let hash = read.as_ref().map(|bytes| hash(bytes)).unwrap_or_default();
        if hash == *self.used.lock() {
            *seen = None;
            return;
        }
        let is_due = |seen: &SeenFile| seen.hash != hash || seen.again_at.is_some_and(|at| at <= now);
        if !seen.as_ref().is_none_or(is_due) {
            return;
        }
        let used = match read {
            Ok(bytes) => self.user.use_changed(&self.path, &bytes).await,
            Err(error) => Err(UnusedFile::for_now(error)),
        };
        let what = self.file.what;
        match used {
            Ok(()) => {
                tracing::info!(hash, "the changed {what} is used");
                *self.used.lock() = hash;
                *seen = None;
                self.succeeded.add();
            }
            Err(error) => {
                let again_at = match &error {
                    UnusedFile::ForGood(_) => None,
                    UnusedFile::ForNow(_) => now.checked_add(RETRY),
                };
                *seen = Some(SeenFile { hash, again_at });
                self.failed.add();
                let cause: &dyn Error = &error;
                let path = self.path.display();
                tracing::error!(error = cause, %path, "the {what} is not used; the one before stays");
            }
        }
    }

    /// The disk may take long, and the text may hold keys.
    async fn read(&self) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || fs::read(path).map(Zeroizing::new)).await;
        let read = read.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        read.map_err(|source| ReadError { path: self.path.display().to_string(), source })
    }

    /// Tells of the counts.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let FollowedFile { what, metrics, .. } = self.file;
        let Some(ReloadMetrics { subject, reloads_help, last_reload_help }) = metrics else { return Ok(()) };
        let metric = |name: &str| format!("apiserver_{subject}_config_controller_{name}");
        let server = ("apiserver_id_hash", self.server_hash.as_str());
        let labels = [[("status", "success"), server], [("status", "failure"), server]];
        let counts = [&self.succeeded, &self.failed];
        let told = || labels.iter().zip(counts).filter(|(_, count)| count.count.load(Ordering::Relaxed) > 0);
        scrape.counters(
            &metric("automatic_reloads"),
            reloads_help,
            told().map(|(labels, count)| (&labels[..], count.count.load(Ordering::Relaxed))),
        )?;
        scrape.gauges(
            &metric("automatic_reload_last_timestamp_seconds"),
            last_reload_help,
            told().map(|(labels, count)| (&labels[..], count.last.load(Ordering::Relaxed) as f64)),
        )?;
        let hash = self.used.lock().clone();
        scrape.gauges(
            &metric("last_config_info"),
            &format!("Information about the last applied {what} with hash as label, split by apiserver identity."),
            [(&[server, ("hash", hash.as_str())][..], 1.0)],
        )
    }

    /// The digest of the text that is used.
    #[cfg(test)]
    pub fn used(&self) -> String {
        self.used.lock().clone()
    }

    /// How many changes were used, and how many were not.
    #[cfg(test)]
    pub fn counts(&self) -> (u64, u64) {
        let count = |of: &ReloadCount| of.count.load(Ordering::Relaxed);
        (count(&self.succeeded), count(&self.failed))
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
    use std::sync::Arc;

    use super::*;

    const FILE: FollowedFile = FollowedFile {
        what: "test configuration",
        every: Duration::from_secs(1),
        metrics: Some(ReloadMetrics { subject: "test", reloads_help: "Reloads.", last_reload_help: "The last one." }),
    };

    /// Takes texts that say `good`, and waits for others that say `later`.
    #[derive(Clone, Default)]
    struct Uses(Arc<Mutex<Vec<String>>>);

    #[async_trait::async_trait]
    impl UsesFile for Uses {
        async fn use_changed(&self, _: &Path, bytes: &[u8]) -> Result<(), UnusedFile> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.0.lock().push(text.clone());
            match &*text {
                "bad" => Err(UnusedFile::for_good("it is bad")),
                "later" => Err(UnusedFile::for_now("it is too early")),
                _ => Ok(()),
            }
        }
    }

    #[tokio::test]
    async fn a_bad_file_is_tried_once_and_one_that_may_become_good_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let uses = Uses::default();
        let follower = FileFollower::new(FILE, file.path().into(), hash(b"first"), uses.clone());
        let (mut seen, now) = (None, Instant::now());
        let tried = || std::mem::take(&mut *uses.0.lock());
        for (text, expected) in
            [("first", 0), ("bad", 1), ("bad", 0), ("later", 1), ("later", 0), ("good", 1), ("good", 0)]
        {
            fs::write(file.path(), text).unwrap();
            follower.look(&mut seen, now).await;
            assert_eq!(tried().len(), expected, "{text}");
        }
        assert_eq!(follower.used(), hash(b"good"));
        fs::write(file.path(), "later").unwrap();
        follower.look(&mut seen, now).await;
        follower.look(&mut seen, now + RETRY).await;
        assert_eq!((tried().len(), follower.used()), (2, hash(b"good")), "the good one stays");
        assert_eq!(follower.counts(), (1, 4));
        fs::remove_file(file.path()).unwrap();
        follower.look(&mut seen, now).await;
        follower.look(&mut seen, now).await;
        assert_eq!(follower.counts(), (1, 5), "one that cannot be read counts, too");
        let metrics = crate::metrics::Metrics::default();
        metrics.add(move |scrape| follower.tell(scrape));
        let text = metrics.render().unwrap();
        let failures = "apiserver_test_config_controller_automatic_reloads_total{status=\"failure\"";
        assert!(text.contains(failures) && text.contains(&hash(b"good")), "{text}");
    }
}
