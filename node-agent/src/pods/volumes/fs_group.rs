//! Gives a volume to the pod's `fsGroup`: its files are the group's, and so is what is made in it later.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown, lchown},
    path::Path,
};

/// Gives `path`, and all below it, to `group`.
pub fn set_group(path: &Path, group: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return lchown(path, None, Some(group));
    }
    chown(path, None, Some(group))?;
    let mode = meta.permissions().mode() & 0o7777;
    let set_group_id = 0o2000;
    let wider = if meta.is_dir() { mode | 0o770 | set_group_id } else { mode | 0o060 };
    fs::set_permissions(path, fs::Permissions::from_mode(wider))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            set_group(&entry?.path(), group)?;
        }
    }
    Ok(())
}
