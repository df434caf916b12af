//! What the agent last learnt from the API, kept on disk, so that a node comes up after a reboot while the API is away.
//!
//! One file per subject: a header line with the format's version and the SHA-256 of what follows, then JSON. A file
//! that is damaged or of another version is reported and ignored: the agent then starts without it and learns
//! everything from the API again.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{deadline::instant_after, private_file};

/// The file that keeps one `T`. Cloning names the same file.
#[derive(Debug)]
pub struct LastKnown<T> {
    path: PathBuf,
    version: u32,
    /// The oldest version that is read.
    oldest: u32,
    kept: PhantomData<fn() -> T>,
}

impl<T> Clone for LastKnown<T> {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), version: self.version, oldest: self.oldest, kept: PhantomData }
    }
}

/// Why nothing could be read from a file, or written to it.
#[derive(Debug, thiserror::Error)]
pub enum LastKnownError {
    /// The disk failed, or the directory is not ours. Remedy: see `source`.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The disk is full or failed. Remedy: see `source`; the file is written again after the next change.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// No header, or bytes that its checksum does not match. Remedy: none needed, the file is replaced after the first
    /// listing.
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf },
    /// Written by another release of the agent. Remedy: none needed, as above.
    #[error("{} has version {found:?}, this agent reads version {expected}", path.display())]
    Version { path: PathBuf, found: String, expected: u32 },
    /// The JSON does not have the fields of this version: a bug, since the checksum holds.
    #[error("cannot decode {}", path.display())]
    Decode { path: PathBuf, source: serde_json::Error },
    /// The value has no JSON form: a bug.
    #[error("cannot encode {}", path.display())]
    Encode { path: PathBuf, source: serde_json::Error },
}

/// First word of every file.
const MAGIC: &str = "fairlead-last-known";

impl<T: Serialize + DeserializeOwned> LastKnown<T> {
    /// The file `NAME.json` of `directory`. Raise `version` with every change of the JSON form of `T`.
    pub fn new(directory: &Path, name: &str, version: u32) -> Self {
        Self { path: directory.join(format!("{name}.json")), version, oldest: version, kept: PhantomData }
    }

    /// Reads files of older versions too, from `oldest` on: their JSON can be read as this version's.
    pub fn reading_from(self, oldest: u32) -> Self {
        Self { oldest, ..self }
    }

    /// What was stored last; `None` where nothing was.
    pub fn load(&self) -> Result<Option<T>, LastKnownError> {
        let path = || self.path.clone();
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LastKnownError::Read { path: path(), source }),
        };
        let damaged = || LastKnownError::Damaged { path: path() };
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let (header, body) = (&bytes[..end], &bytes[end + 1..]);
        let header = std::str::from_utf8(header).map_err(|_| damaged())?;
        let [magic, version, checksum] = header.split(' ').collect::<Vec<_>>()[..] else { return Err(damaged()) };
        if magic != MAGIC {
            return Err(damaged());
        }
        if !version.parse().is_ok_and(|version: u32| (self.oldest..=self.version).contains(&version)) {
            let found = version.to_owned();
            return Err(LastKnownError::Version { path: path(), found, expected: self.version });
        }
        if checksum != hex::encode(Sha256::digest(body)) {
            return Err(damaged());
        }
        serde_json::from_slice(body).map(Some).map_err(|source| LastKnownError::Decode { path: path(), source })
    }

    /// As [`LastKnown::load`], but an unusable file is logged and counts as none.
    pub fn load_or_warn(&self) -> Option<T> {
        self.load().unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot use what this node last knew, starting without it"
            );
            None
        })
    }

    /// Forgets what was stored; nothing where nothing was.
    pub fn remove(&self) -> Result<(), LastKnownError> {
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LastKnownError::Write { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Replaces the file. Durable when this returns. Blocks: call it on a blocking thread.
    pub fn store(&self, value: &T) -> Result<(), LastKnownError> {
        self.write(value).map(drop)
    }

    /// As [`LastKnown::store`]; returns the file's size in bytes.
    fn write(&self, value: &T) -> Result<usize, LastKnownError> {
        let path = || self.path.clone();
        let body = serde_json::to_vec(value).map_err(|source| LastKnownError::Encode { path: path(), source })?;
        let mut bytes = format!("{MAGIC} {} {}\n", self.version, hex::encode(Sha256::digest(&body))).into_bytes();
        bytes.extend(body);
        private_file::write(&self.path, &bytes).map_err(|source| LastKnownError::Write { path: path(), source })?;
        Ok(bytes.len())
    }
}

/// How often a file may be written.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between a change and its write: changes that come in this time share the write.
    debounce: Duration,
    /// Bytes that the file may cost each second in the long run.
    bytes_per_second: u32,
}

/// Less than 3 GB each day, however large and busy the cluster.
const PACE: Pace = Pace { debounce: Duration::from_secs(2), bytes_per_second: 32 * 1024 };
/// After a write, this many times its duration passes before the next: a large cluster that changes all the time costs
/// 1 % of a core.
const PAUSE_FACTOR: u32 = 100;
/// However long and large writes are: what is kept is at most this much older than what is known.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

impl Pace {
    /// How long after a write of `bytes` that took `elapsed` the next may begin.
    fn pause_after(self, bytes: usize, elapsed: Duration) -> Duration {
        let by_bytes = Duration::try_from_secs_f64(bytes as f64 / f64::from(self.bytes_per_second));
        elapsed.saturating_mul(PAUSE_FACTOR).max(by_bytes.unwrap_or(LONGEST_PAUSE)).min(LONGEST_PAUSE)
    }
}

/// Stores `value` of every change of `source` until `stop`, debounced and paced by what a write costs; a change that is
/// pending at the stop is still stored.
///
/// `value` returns `None` for states that must not be kept. Returns early when the source ends.
pub async fn keep<S, T>(
    file: LastKnown<T>,
    source: watch::Receiver<S>,
    value: fn(&S) -> Option<T>,
    stop: CancellationToken,
) where
    S: Send + Sync + Clone + 'static,
    T: Serialize + DeserializeOwned + 'static,
{
    keep_paced(file, source, value, PACE, stop).await;
}

async fn keep_paced<S, T>(
    file: LastKnown<T>,
    mut source: watch::Receiver<S>,
    value: fn(&S) -> Option<T>,
    pace: Pace,
    stop: CancellationToken,
) where
    S: Send + Sync + Clone + 'static,
    T: Serialize + DeserializeOwned + 'static,
{
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            // Pending changes are stored before the stop is seen.
            biased;
            changed = source.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(not_before.max(instant_after(Instant::now(), pace.debounce))) => {}
        }
        let state = source.borrow_and_update().clone();
        let (file, started) = (file.clone(), Instant::now());
        let stored = tokio::task::spawn_blocking(move || value(&state).map(|value| file.write(&value))).await;
        let bytes = match stored {
            Ok(Some(Ok(bytes))) => bytes,
            Ok(None) => 0,
            Ok(Some(Err(error))) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what this node knows is not kept on disk");
                0
            }
            Err(error) => {
                tracing::error!(%error, "storing what this node knows ended abnormally");
                0
            }
        };
        not_before = instant_after(Instant::now(), pace.pause_after(bytes, started.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn file(directory: &Path, version: u32) -> LastKnown<Vec<String>> {
        LastKnown::new(directory, "names", version)
    }

    #[test]
    fn what_was_stored_is_loaded_and_only_the_owner_can_read_it() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path(), 1);
        assert_eq!(file.load().unwrap(), None);
        file.store(&vec!["a".into(), "b\n".into()]).unwrap();
        assert_eq!(file.load().unwrap(), Some(vec!["a".into(), "b\n".into()]));
        let path = directory.path().join("names.json");
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.load().unwrap(), None);
    }

    #[test]
    fn a_file_damaged_anywhere_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path(), 1);
        file.store(&vec!["a".into()]).unwrap();
        let path = directory.path().join("names.json");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(file.load().is_err(), "cut after {cut} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(file.load().is_err(), "a bit of byte {at} is flipped");
        }
        assert_eq!(file.load_or_warn(), None);
    }

    #[test]
    fn a_file_of_another_version_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        file(directory.path(), 1).store(&vec!["a".into()]).unwrap();
        let error = file(directory.path(), 2).load().unwrap_err();
        assert!(matches!(error, LastKnownError::Version { expected: 2, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_change_that_is_pending_at_the_stop_is_stored() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, receiver) = watch::channel(0_u32);
        let (file, stop) = (LastKnown::<u32>::new(directory.path(), "number", 1), CancellationToken::new());
        sender.send_replace(7);
        stop.cancel();
        keep(file.clone(), receiver, |number| Some(*number), stop).await;
        assert_eq!(file.load().unwrap(), Some(7));
    }

    #[tokio::test]
    async fn a_state_that_is_not_to_be_kept_leaves_the_file_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, receiver) = watch::channel(0_u32);
        let (file, stop) = (LastKnown::<u32>::new(directory.path(), "number", 1), CancellationToken::new());
        file.store(&7).unwrap();
        sender.send_replace(8);
        stop.cancel();
        keep(file.clone(), receiver, |_| None, stop).await;
        assert_eq!(file.load().unwrap(), Some(7));
    }

    #[test]
    fn a_pause_grows_with_the_bytes_and_the_time_of_a_write() {
        assert_eq!(PACE.pause_after(0, Duration::ZERO), Duration::ZERO);
        assert_eq!(PACE.pause_after(0, Duration::from_millis(100)), Duration::from_secs(10));
        assert_eq!(PACE.pause_after(10 << 20, Duration::from_millis(100)), Duration::from_secs(320));
        assert_eq!(PACE.pause_after(1 << 30, Duration::MAX), LONGEST_PAUSE);
    }

    #[tokio::test]
    async fn a_large_state_that_changes_all_the_time_is_stored_no_more_often_than_its_size_allows() {
        static STORES: AtomicU32 = AtomicU32::new(0);
        let large = |number: &u32| {
            STORES.fetch_add(1, Ordering::Relaxed);
            Some(vec![number.to_string(), "x".repeat(1 << 20)])
        };
        let directory = tempfile::tempdir().unwrap();
        let (sender, receiver) = watch::channel(0_u32);
        let stop = CancellationToken::new();
        // A mebibyte each 200 ms.
        let pace = Pace { debounce: Duration::from_millis(1), bytes_per_second: 5 << 20 };
        let keeping = tokio::spawn(keep_paced(file(directory.path(), 1), receiver, large, pace, stop.clone()));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) || STORES.load(Ordering::Relaxed) < 2 {
            sender.send_modify(|number| *number += 1);
            tokio::task::yield_now().await;
        }
        let (stores, elapsed) = (STORES.load(Ordering::Relaxed), began.elapsed());
        assert!((stores - 1) * Duration::from_millis(200) <= elapsed, "{stores} in {elapsed:?}");
        stop.cancel();
        keeping.await.unwrap();
    }
}
