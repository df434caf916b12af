//! Writes a pod's hosts file in place: containers have it mounted, so that no other file can take its name.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::Ipv4Addr,
    os::unix::fs::FileExt,
    path::Path,
};

use k8s_openapi::api::core::v1::Pod;

use super::uid;
use crate::pods::{Context, names};

/// Brings the hosts file to what a pod with this address should know.
pub fn write(context: &Context, pod: &Pod, ip: Ipv4Addr) -> io::Result<()> {
    let directory = context.pod_dir(&uid(pod));
    fs::create_dir_all(&directory)?;
    let host = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let text = names::hosts(pod, ip, &context.config.cluster_domain, &host);
    replace_in_place(&directory.join("hosts"), text.as_bytes())
}

/// Brings the file to `bytes`. One that is so already is left alone, and one for which there is no space keeps what it
/// has: what goes beyond its present end is written first.
fn replace_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    // The pod may write it, and make it as long as it likes: only one of the right length is read.
    let length = file.metadata()?.len();
    if length == bytes.len() as u64 && holds(&file, bytes)? {
        return Ok(());
    }
    let (head, tail) = bytes.split_at(usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len()));
    write_tail(&file, tail, length.min(bytes.len() as u64))?;
    file.write_all_at(head, 0)?;
    file.set_len(bytes.len() as u64)
}

fn holds(file: &File, bytes: &[u8]) -> io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::volumes::{mount_memory, unmount_all};

    #[test]
    fn the_file_becomes_longer_and_shorter_and_is_always_the_same_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        replace_in_place(&path, b"first").unwrap();
        let mounted = File::open(&path).unwrap();
        for text in ["something longer", "short", "", "again"] {
            replace_in_place(&path, text.as_bytes()).unwrap();
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
        replace_in_place(&path, b"text").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
    }

    #[test]
    fn a_file_that_is_as_it_should_be_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        replace_in_place(&path, b"text").unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        replace_in_place(&path, b"text").unwrap();
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
        replace_in_place(&path, b"127.0.0.1 localhost").unwrap();
        let longer = vec![b'x'; 3 * 4096];
        let refused = replace_in_place(&path, &longer).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"127.0.0.1 localhost");
        unmount_all(directory.path()).unwrap();
    }
}
