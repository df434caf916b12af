//! A small file system for tests of what happens when it is full. The control service includes it, too.

use std::{fs, path::Path, process::Command};

/// A small file system that goes away with the value.
pub(crate) struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of this size.
    pub(crate) fn mount(megabytes: usize) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(dir.path())
            .output()
            .map_err(|e| format!("mount cannot be run: {e}"))?;
        if mounted.status.success() {
            Ok(Self { dir })
        } else {
            Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned())
        }
    }
}

impl SmallDisk {
    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = Command::new("umount").arg("-l").arg(self.dir.path()).status() {
            eprintln!("the file system {} stays mounted: {error}", self.dir.path().display());
        }
    }
}

/// Leaves not a byte.
pub(crate) fn fill_to_the_brim(ballast: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(ballast).unwrap();
    for size in [64 << 10, 4 << 10, 1] {
        let block = vec![1u8; size];
        while file.write_all(&block).is_ok() {}
    }
}
