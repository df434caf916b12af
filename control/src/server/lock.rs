//! One control service per data directory: locks it, since two processes that write one store would corrupt it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Held for the life of the service; the kernel releases it however the process ends.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Why the data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another control service uses the directory: stop it, or use another directory.
    #[error("another control service{} runs on {}: stop it, or choose another --data-dir", by(.pid), dir.display())]
    Taken { dir: PathBuf, pid: Option<u32> },
    /// The lock's file could not be made.
    #[error("cannot lock {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn by(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl DataDirLock {
    /// Locks `dir`, or names the process that holds it.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("lock");
        let wrap = |source| LockError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(wrap)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Only for the message: an unreadable number is no number.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Taken { dir: dir.into(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(wrap(source)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        // A full disk must not keep a control service from starting: reads go on, and only the message loses the
        // number.
        if let Err(e) = write(&mut file) {
            tracing::warn!("cannot note the process in {}: {e}", path.display());
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_service_on_the_same_directory_is_told_who_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirLock::take(dir.path()).unwrap();
        let message = DataDirLock::take(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&std::process::id().to_string()) && message.contains("--data-dir"), "{message}");
        drop(first);
        DataDirLock::take(dir.path()).unwrap();
    }
}
