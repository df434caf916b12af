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

/// A directory of records.
#[derive(Debug)]
pub struct AddressRecords {
    dir: PathBuf,
}

impl AddressRecords {
    /// Opens the directory of records, making it where it is missing.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// All records, pod UID and address. One that cannot be read is dropped with a warning: its pod is given an address
    /// anew.
    pub fn load(&self) -> io::Result<Vec<(String, Ipv4Addr)>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            match read(&path) {
                Ok(record) => records.push((record.pod_uid, record.address)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "dropping an unreadable address record");
                    fs::remove_file(&path)?;
                }
            }
        }
        records.sort();
        Ok(records)
    }

    /// Records that the pod has `address`.
    pub fn write(&self, pod_uid: &str, address: Ipv4Addr) -> io::Result<()> {
        let path = self.path(pod_uid);
        let side = path.with_extension("new");
        fs::write(&side, serde_json::to_vec(&Record { pod_uid: pod_uid.to_owned(), address })?)?;
        fs::rename(&side, &path)
    }

    /// Not an error where there is none.
    pub fn remove(&self, pod_uid: &str) -> io::Result<()> {
        match fs::remove_file(self.path(pod_uid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Named by a hash: a UID is whatever the API says, a file name is not.
    fn path(&self, pod_uid: &str) -> PathBuf {
        self.dir.join(hex::encode(Sha256::digest(pod_uid.as_bytes())))
    }
}

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
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
}
