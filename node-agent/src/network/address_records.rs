//! The pods' addresses on disk, one small file a pod, so that an agent that comes back gives every pod the address it
//! has.
//!
//! Files are written to the side and renamed. They are not synced: a power cut that loses a record has ended its pod as
//! well.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    pod_uid: String,
    address: Ipv4Addr,
}

/// Which file or directory could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
#[error("{path}")]
pub struct RecordError {
    /// The file, or the directory of all.
    pub path: PathBuf,
    /// Mostly a full or a broken disk.
    pub source: io::Error,
}

/// A directory of records.
#[derive(Debug)]
pub struct AddressRecords {
    dir: PathBuf,
}

impl AddressRecords {
    /// Opens the directory of records, making it where it is missing.
    pub fn open(dir: PathBuf) -> Result<Self, RecordError> {
        fs::create_dir_all(&dir).map_err(of(&dir))?;
        Ok(Self { dir })
    }

    /// All records, pod UID and address. One that is no record is dropped with a warning: its pod is given an address
    /// anew. Where one cannot be read nothing is loaded: without it a pod that runs would lose its address to another.
    pub fn load(&self) -> Result<Vec<(String, Ipv4Addr)>, RecordError> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(of(&self.dir))? {
            let path = entry.map_err(of(&self.dir))?.path();
            if path.extension().is_some_and(|extension| extension == SIDE) {
                // Of a write that did not come to its end.
                fs::remove_file(&path).map_err(of(&path))?;
                continue;
            }
            match serde_json::from_slice::<Record>(&fs::read(&path).map_err(of(&path))?) {
                Ok(record) => records.push((record.pod_uid, record.address)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "dropping an address record that makes no sense");
                    fs::remove_file(&path).map_err(of(&path))?;
                }
            }
        }
        records.sort();
        Ok(records)
    }

    /// Records that the pod has `address`.
    pub fn write(&self, pod_uid: &str, address: Ipv4Addr) -> Result<(), RecordError> {
        let path = self.path(pod_uid);
        let side = path.with_extension(SIDE);
        let record = serde_json::to_vec(&Record { pod_uid: pod_uid.to_owned(), address });
        fs::write(&side, record.map_err(|error| of(&path)(error.into()))?).map_err(of(&side))?;
        fs::rename(&side, &path).map_err(of(&path))
    }

    /// Not an error where there is none.
    pub fn remove(&self, pod_uid: &str) -> Result<(), RecordError> {
        let path = self.path(pod_uid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(of(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Named by a hash: a UID is whatever the API says, a file name is not.
    fn path(&self, pod_uid: &str) -> PathBuf {
        self.dir.join(hex::encode(Sha256::digest(pod_uid.as_bytes())))
    }
}

/// Extension of files that are being written.
const SIDE: &str = "new";

fn of(path: &Path) -> impl Fn(io::Error) -> RecordError {
    move |source| RecordError { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_an_unreadable_one_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let records = AddressRecords::open(dir.path().join("pods")).unwrap();
        records.write("../escape", Ipv4Addr::new(10, 0, 0, 2)).unwrap();
        records.write("b", Ipv4Addr::new(10, 0, 0, 3)).unwrap();
        fs::write(dir.path().join("pods/broken"), "{").unwrap();

        let again = AddressRecords::open(dir.path().join("pods")).unwrap();
        let expected =
            vec![("../escape".to_owned(), Ipv4Addr::new(10, 0, 0, 2)), ("b".to_owned(), Ipv4Addr::new(10, 0, 0, 3))];
        assert_eq!(again.load().unwrap(), expected);
        again.remove("b").unwrap();
        again.remove("b").unwrap();
        assert_eq!(again.load().unwrap().len(), 1);
    }

    #[test]
    fn a_record_that_cannot_be_read_stays_and_says_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let records = AddressRecords::open(dir.path().to_owned()).unwrap();
        records.write("a", Ipv4Addr::new(10, 0, 0, 2)).unwrap();
        let path = records.path("a");
        fs::remove_file(&path).unwrap();
        // Reading it fails, whoever reads.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let error = records.load().unwrap_err();
        assert_eq!((error.path.as_path(), error.source.raw_os_error()), (path.as_path(), Some(libc::ELOOP)));
        assert!(path.is_symlink(), "it was removed");
    }

    #[test]
    fn what_an_unfinished_write_left_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let records = AddressRecords::open(dir.path().to_owned()).unwrap();
        records.write("a", Ipv4Addr::new(10, 0, 0, 2)).unwrap();
        let side = records.path("b").with_extension(SIDE);
        fs::rename(records.path("a"), &side).unwrap();
        assert_eq!(records.load().unwrap(), []);
        assert!(!side.exists());
    }
}
