//! A temporary directory whose mounts go with it.

use std::path::Path;

use fairlead_node_agent::mount_table;
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
        let mounts = match mount_table::read() {
            Ok(mounts) => mounts,
            Err(error) => return eprintln!("cannot tell what is mounted in {}: {error}", self.path().display()),
        };
        // The last mounted first: it may be inside another.
        for mount in mounts.iter().rev().map(|mount| &*mount.mount_point).filter(|at| at.starts_with(self.path())) {
            if let Err(error) = umount2(mount, MntFlags::MNT_DETACH) {
                eprintln!("cannot unmount {}: {error}", mount.display());
            }
        }
    }
}
