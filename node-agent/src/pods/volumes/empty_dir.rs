//! Directories in memory (`emptyDir` with medium Memory, Secrets), and taking them down again.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use crate::mount_table;

/// Mounts a tmpfs of at most `limit` bytes at `directory`, unless one is there already.
pub fn mount_memory(directory: &Path, limit: Option<i64>) -> io::Result<()> {
    let directory = &directory.canonicalize()?;
    if mount_points()?.contains(directory) {
        return Ok(());
    }
    let size = limit.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let options = format!("mode=0777{size}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Unmounts all that is mounted at `directory` and below it. After an error nothing there may be removed: it may be
/// the host's.
pub fn unmount_all(directory: &Path) -> io::Result<()> {
    // As the kernel's table names it: the agent's own directory may be behind a link.
    let directory = match directory.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        directory => directory?,
    };
    let below = || -> io::Result<Vec<PathBuf>> {
        let mut points = mount_points()?;
        points.retain(|point| point.starts_with(&directory));
        Ok(points)
    };
    let points = below()?;
    // A directory of the host that is bound here shares its mounts with the host, which would lose them, too.
    points.iter().try_for_each(|point| make_private(point))?;
    // The latest first: a mount point may be in another, or hidden by it.
    for point in points.iter().rev() {
        make_private(point)?;
        umount2(point.as_path(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    let left: Vec<String> = below()?.iter().map(|point| point.display().to_string()).collect();
    if left.is_empty() { Ok(()) } else { Err(io::Error::other(format!("still mounted: {}", left.join(", ")))) }
}

fn make_private(point: &Path) -> io::Result<()> {
    match mount(None::<&str>, point, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>) {
        // Hidden by another mount; its turn comes when that is gone.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        made => Ok(made?),
    }
}

/// Mount points of this process's namespace, in the order they were mounted.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    Ok(mount_table::read()?.into_iter().map(|entry| entry.mount_point).collect())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_is_mounted_behind_a_link_is_unmounted_before_anything_is_removed() {
        if !nix::unistd::geteuid().is_root() {
            crate::skipped::skipped("only root mounts");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (data, link) = (directory.path().join("data"), directory.path().join("link"));
        fs::create_dir_all(data.join("pod/v")).unwrap();
        symlink(&data, &link).unwrap();
        mount_memory(&link.join("pod/v"), None).unwrap();
        mount_memory(&link.join("pod/v"), None).unwrap();
        fs::write(data.join("pod/v/x"), "").unwrap();
        let canonical = data.canonicalize().unwrap();
        let mounted = || mount_points().unwrap().iter().filter(|point| point.starts_with(&canonical)).count();
        assert_eq!(mounted(), 1, "mounted once");
        unmount_all(&link.join("pod")).unwrap();
        assert_eq!((mounted(), fs::read_dir(data.join("pod/v")).unwrap().count()), (0, 0));
        unmount_all(&link.join("nothing")).unwrap();
    }
}
