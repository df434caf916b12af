//! Measures this machine for [`super::conditions`]: reads `/proc` and the file systems, and decides nothing.

use std::path::{Path, PathBuf};

use procfs::{Current, LoadAverage, Meminfo};

use super::conditions::{FileSystem, Measurements, Memory, Processes};

/// What is measured besides the machine itself.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Its file system is the node's: volumes and logs.
    pub data_dir: PathBuf,
    /// Where the container runtime keeps its images, if it says so.
    pub image_dir: Option<PathBuf>,
}

impl Measured {
    /// Measures now. Blocks for as long as `statvfs` does.
    pub fn take(&self) -> Measurements {
        let node_files = file_system(&self.data_dir);
        let image_files =
            self.image_dir.as_deref().filter(|dir| is_elsewhere(dir, &self.data_dir)).and_then(file_system);
        Measurements { memory: memory(), node_files, image_files, processes: processes() }
    }
}

fn memory() -> Option<Memory> {
    let found = logged("/proc/meminfo", Meminfo::current())?;
    Some(Memory { size_bytes: found.mem_total, available_bytes: found.mem_available? })
}

/// Tasks of the whole machine, threads too: they take process ids.
fn processes() -> Option<Processes> {
    let running = logged("/proc/loadavg", LoadAverage::current())?.max;
    let pid_max = logged("kernel.pid_max", procfs::sys::kernel::pid_max())?;
    let threads_max = logged("kernel.threads-max", procfs::sys::kernel::threads_max())?;
    let limit = u64::try_from(pid_max).unwrap_or_default().min(threads_max.into());
    Some(Processes { running: running.into(), limit })
}

fn logged<T>(what: &str, read: procfs::ProcResult<T>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!(%error, what, "cannot measure this node")).ok()
}

/// How full the file system that holds `path` is; `None`, with a warning in the log, where it does not tell.
pub fn file_system(path: &Path) -> Option<FileSystem> {
    let found = nix::sys::statvfs::statvfs(path);
    let found =
        found.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "cannot measure a file system"));
    let found = found.ok()?;
    let (block, used) = (found.fragment_size(), found.blocks().saturating_sub(found.blocks_free()));
    Some(FileSystem {
        size_bytes: used.saturating_add(found.blocks_available()).saturating_mul(block),
        available_bytes: found.blocks_available().saturating_mul(block),
        inodes: found.files(),
        inodes_free: found.files_available(),
    })
}

fn is_elsewhere(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(a) != device(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_measured() {
        let dir = tempfile::tempdir().unwrap();
        let measured = Measured { data_dir: dir.path().into(), image_dir: Some(dir.path().into()) }.take();
        assert!(measured.memory.is_some_and(|memory| 0 < memory.available_bytes));
        assert!(measured.node_files.is_some_and(|files| files.available_bytes <= files.size_bytes));
        assert_eq!(measured.image_files, None, "on the same file system");
        assert!(
            measured.processes.is_some_and(|processes| 0 < processes.running && processes.running < processes.limit)
        );
    }
}
