//! Directories in memory (`emptyDir` with medium Memory, Secrets), and taking them down again.

use std::{io, path::Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a tmpfs of at most `limit` bytes at `directory`, unless one is there already.
pub fn mount_memory(directory: &Path, limit: Option<i64>) -> io::Result<()> {
    if mount_points()?.iter().any(|point| Path::new(point) == directory) {
        return Ok(());
    }
    let size = limit.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let options = format!("mode=0777{size}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Unmounts all that is mounted below `directory`.
pub fn unmount_all(directory: &Path) -> io::Result<()> {
    // The deepest first: a mount point may be in another.
    for point in mount_points()?.iter().rev().filter(|point| Path::new(point).starts_with(directory)) {
        umount2(point.as_str(), MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Mount points of this process's namespace, in the order they were mounted.
fn mount_points() -> io::Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

/// The table writes blanks and backslashes as `\040`.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
