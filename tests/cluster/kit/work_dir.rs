//! A temporary directory whose mounts go with it.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Removed with the value, and before it everything that is mounted below: agents leave the volumes of their pods and
/// engines the file systems of their containers, so that pods outlive them.
pub struct WorkDir(tempfile::TempDir);

impl WorkDir {
    pub fn new(name: &str) -> std::io::Result<Self> {
        tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().map(Self)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        // The last mounted first: it may be inside another.
        for mount in below.filter(|mount| mount.starts_with(self.path())).collect::<Vec<_>>().into_iter().rev() {
            if let Err(error) = umount2(&mount, MntFlags::MNT_DETACH) {
                eprintln!("cannot unmount {}: {error}", mount.display());
            }
        }
    }
}
