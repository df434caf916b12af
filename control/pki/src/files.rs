//! How key material lies on disk: mode 0600, replaced atomically, read with errors that name the file.
//!
//! Never decides what a file should hold.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Why a file of the PKI could not be used. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum PkiFileError {
    /// The file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file or directory cannot be made.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others could read a key, or replace it: take their rights away.
    #[error("{} holds a private key but has mode {mode:04o}, so others can read it: run `chmod 600` on it, or remove it if the key may be known", path.display())]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Permission bits as found.
        mode: u32,
    },
    /// The file is no PEM.
    #[error("{} is not text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// Returns the text of a file that holds a private key, or `None` where there is no such file.
///
/// A file that group or others may read is refused: what it holds can no longer be called private.
pub fn read_private(path: &Path) -> Result<Option<String>, PkiFileError> {
    let read = |source| PkiFileError::Read { path: path.into(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(read(e)),
    };
    let mode = file.metadata().map_err(read)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PkiFileError::TooOpen { path: path.into(), mode });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(read)?;
    String::from_utf8(bytes).map(Some).map_err(|_| PkiFileError::NotText { path: path.into() })
}

/// Replaces `path` by `text`, mode 0600: readers see the old text or the new, also after a power cut.
///
/// Writes nothing where the file is so already: a service can start again on a disk that is full.
pub fn write_private(path: &Path, text: &str) -> Result<(), PkiFileError> {
    if read_private(path).is_ok_and(|found| found.as_deref() == Some(text)) {
        return Ok(());
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_directory_of(path)
    };
    write().map_err(|source| PkiFileError::Write { path: path.into(), source })
}

/// Removes a file, durably.
pub fn remove(path: &Path) -> Result<(), PkiFileError> {
    let removed = fs::remove_file(path).and_then(|()| sync_directory_of(path));
    removed.map_err(|source| PkiFileError::Write { path: path.into(), source })
}

/// Puts a file in the place of another, durably.
pub fn rename(from: &Path, to: &Path) -> Result<(), PkiFileError> {
    let renamed = fs::rename(from, to).and_then(|()| sync_directory_of(to));
    renamed.map_err(|source| PkiFileError::Write { path: to.into(), source })
}

/// A rename or removal is durable only once the directory is.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes `dir` where it is missing, readable by its owner alone. A directory that is there stays as it is: it may be
/// anyone's.
pub fn private_dir(dir: &Path) -> Result<(), PkiFileError> {
    let make = || -> io::Result<()> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            made => made,
        }
    };
    make().map_err(|source| PkiFileError::Write { path: dir.into(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_written_file_is_private_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(read_private(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let number = || fs::metadata(&path).unwrap().ino();
        write_private(&path, "one").unwrap();
        let first = number();
        write_private(&path, "one").unwrap();
        assert_eq!(number(), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, "one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "an open mode is repaired");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_its_name_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        write_private(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let message = read_private(&path).unwrap_err().to_string();
        assert!(message.contains("ca.key") && message.contains("0644"), "{message}");
    }

    #[test]
    fn a_new_directory_is_private_and_an_old_one_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("a/new"), dir.path().join("old"));
        fs::create_dir(&old).unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&new).unwrap();
        private_dir(&old).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&new), mode(&old)), (0o700, 0o755));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(private_dir(&dir.path().join("file")).unwrap_err().to_string().contains("file"));
    }

    #[test]
    fn a_file_that_is_not_there_is_no_error() {
        assert!(read_private(Path::new("/nowhere/at/all")).unwrap().is_none());
    }
}
