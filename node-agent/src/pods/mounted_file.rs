//! Files that containers have mounted, such as `/etc/hosts`: written in place, since no other file can take their name,
//! and opened without a wait, since a container may do with them what it likes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Brings the file to `bytes`. One that is so already is left alone, and one for which there is no space keeps what it
/// has: what goes beyond its present end is written first.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match holds(path, bytes) {
        Ok(true) => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = open(options.read(true).write(true).create(true).truncate(false), path)?;
    let length = file.metadata()?.len();
    let (head, tail) = bytes.split_at(usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len()));
    write_tail(&file, tail, length.min(bytes.len() as u64))?;
    file.write_all_at(head, 0)?;
    file.set_len(bytes.len() as u64)
}

/// Opens a file that a pod has mounted, and never waits: a container's root may hold a lease on it (fcntl(2)), for
/// which `open` would wait 45 seconds. It fails with [`io::ErrorKind::WouldBlock`] then, and has the kernel ask for the
/// lease.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)
}

/// Whether the file has exactly these bytes.
pub fn holds(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let file = open(OpenOptions::new().read(true), path)?;
    // The pod may make it as long as it likes: only one of the right length is read.
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut held = vec![0; bytes.len()];
    match file.read_exact_at(&mut held, 0) {
        // It became shorter meanwhile.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| held == bytes),
    }
}

fn write_tail(file: &File, tail: &[u8], end: u64) -> io::Result<()> {
    let written = file.write_all_at(tail, end);
    if written.is_err() {
        file.set_len(end)?;
    }
    written
}

/// What a container's root does to have the agent wait. Nobody reads the signal that asks for the lease.
#[cfg(test)]
pub fn lease(file: &File, kind: libc::c_int) {
    use std::os::fd::AsRawFd;

    const F_SETSIG: libc::c_int = 10;
    // SAFETY: It takes numbers alone, and the file is open.
    let set = |command, value: libc::c_int| match unsafe { libc::fcntl(file.as_raw_fd(), command, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // By default the kernel sends SIGIO, which would end the test.
    set(F_SETSIG, libc::SIGURG).unwrap();
    let started = std::time::Instant::now();
    // A program that another test starts in this moment has the file open until it runs.
    while let Err(error) = set(libc::F_SETLEASE, kind) {
        assert!(error.kind() == io::ErrorKind::WouldBlock && started.elapsed().as_secs() < 20, "{error}");
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Instant};

    use super::*;
    use crate::pods::volumes::{mount_memory, unmount_all};

    #[test]
    fn a_file_on_which_a_pod_holds_a_lease_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        replace(&path, b"text").unwrap();
        let held = File::open(&path).unwrap();
        lease(&held, libc::F_RDLCK);
        let started = Instant::now();
        replace(&path, b"text").unwrap();
        let refused = replace(&path, b"other").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(started.elapsed().as_secs() < 20, "it waited for {:?}", started.elapsed());
        lease(&held, libc::F_UNLCK);
        replace(&path, b"other").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"other");
    }

    #[test]
    fn a_file_is_not_written_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("hosts"), directory.path().join("other"));
        fs::write(&other, "of somebody").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert_eq!(replace(&path, b"text").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(fs::read(&other).unwrap(), b"of somebody");
    }

    #[test]
    fn the_file_becomes_longer_and_shorter_and_is_always_the_same_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        replace(&path, b"first").unwrap();
        let mounted = File::open(&path).unwrap();
        for text in ["something longer", "short", "", "again"] {
            replace(&path, text.as_bytes()).unwrap();
            let mut seen = vec![0; 64];
            let length = mounted.read_at(&mut seen, 0).unwrap();
            assert_eq!(seen[..length], *text.as_bytes());
        }
    }

    #[test]
    fn a_file_that_a_pod_made_huge_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        // Sparse: more than this machine has memory.
        File::create(&path).unwrap().set_len(1 << 42).unwrap();
        replace(&path, b"text").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
    }

    #[test]
    fn a_file_that_is_as_it_should_be_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        replace(&path, b"text").unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        replace(&path, b"text").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
    }

    #[test]
    fn on_a_full_disk_the_file_keeps_what_it_has() {
        if !nix::unistd::geteuid().is_root() {
            crate::skipped::skipped("only root mounts");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        mount_memory(directory.path(), Some(4096)).unwrap();
        let path = directory.path().join("hosts");
        replace(&path, b"127.0.0.1 localhost").unwrap();
        let longer = vec![b'x'; 3 * 4096];
        let refused = replace(&path, &longer).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"127.0.0.1 localhost");
        unmount_all(directory.path()).unwrap();
    }
}
