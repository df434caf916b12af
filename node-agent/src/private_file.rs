//! Files that are written whole or not at all and that only their owner can read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Replaces `path` by a file of `bytes`, mode 0600. Durable when this returns: a power cut leaves the old content or
/// the new.
///
/// A file that is so already is left alone: an agent starts again on a full disk, too.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if holds(path, bytes) {
        return Ok(());
    }
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(directory)?;
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    // The rename itself is durable only with its directory.
    File::open(directory)?.sync_all()
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    let is_private = || std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o7777 == 0o600);
    std::fs::read(path).is_ok_and(|found| found == bytes) && is_private()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_as_it_should_be_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        write(&path, b"one").unwrap();
        // Where the draft cannot be made, as on a full disk.
        std::fs::create_dir(path.with_extension("new")).unwrap();
        write(&path, b"one").unwrap();
        assert!(write(&path, b"two").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        std::fs::remove_dir(path.with_extension("new")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, b"one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
