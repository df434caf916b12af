//! The kernel settings this part changes: each is recorded with its earlier value before it is written, and put back on
//! request.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use parking_lot::Mutex;

use crate::private_file;

/// Why a setting could not be read, written or recorded.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The setting could not be read or written.
    #[error("{key}")]
    Access { key: String, source: io::Error },
    /// The earlier value could not be kept: without that nothing is changed.
    #[error("cannot record {path}")]
    Record { path: PathBuf, source: io::Error },
}

/// Settings changed so far: path below `/proc/sys` → value found before.
#[derive(Debug)]
pub struct Sysctls {
    record: PathBuf,
    earlier: Mutex<BTreeMap<String, String>>,
}

impl Sysctls {
    /// Continues the record of an earlier run: its values are those to restore.
    pub fn open(record: PathBuf) -> Result<Self, SysctlError> {
        let earlier = match fs::read(&record) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| SysctlError::Record { path: record.clone(), source: source.into() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(SysctlError::Record { path: record, source }),
        };
        Ok(Self { record, earlier: Mutex::new(earlier) })
    }

    /// Writes `value` unless the kernel has it. `key` is a path below `/proc/sys` in the namespace of the calling
    /// thread.
    pub fn set(&self, key: &str, value: &str) -> Result<(), SysctlError> {
        let path = PathBuf::from("/proc/sys").join(key);
        let access = |source| SysctlError::Access { key: key.to_owned(), source };
        let found = fs::read_to_string(&path).map_err(access)?;
        if found.trim() == value {
            return Ok(());
        }
        self.remember(key, found.trim())?;
        fs::write(&path, value).map_err(access)
    }

    /// Puts every recorded value back. A setting whose interface is gone has nothing to go back to.
    pub fn restore(&self) -> Result<(), SysctlError> {
        let mut earlier = self.earlier.lock();
        for (key, value) in earlier.iter() {
            match fs::write(PathBuf::from("/proc/sys").join(key), value) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SysctlError::Access { key: key.clone(), source: error });
                }
                _ => (),
            }
        }
        earlier.clear();
        self.write(&earlier)
    }

    fn remember(&self, key: &str, value: &str) -> Result<(), SysctlError> {
        let mut earlier = self.earlier.lock();
        if earlier.contains_key(key) {
            return Ok(());
        }
        earlier.insert(key.to_owned(), value.to_owned());
        self.write(&earlier)
    }

    fn write(&self, earlier: &BTreeMap<String, String>) -> Result<(), SysctlError> {
        let record = |source: io::Error| SysctlError::Record { path: self.record.clone(), source };
        let bytes = serde_json::to_vec(earlier).map_err(|error| record(error.into()))?;
        // Durable: a record that a power cut left empty would keep the agent from starting.
        private_file::write(&self.record, &bytes).map_err(record)
    }
}
