//! The directory of pins on a bpffs: its layout, changing over a hook, and leaving nothing behind.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::links::{FdLink, PinnedLink};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use proxy_ebpf::LAYOUT_VERSION;

use super::LoadError;

/// A directory that marks a bpffs mounted by fairlead (files cannot be made there).
const MOUNT_MARK: &str = "mounted";

/// Removes every pin, links first, and the bpffs where fairlead mounted it and nobody else uses it.
pub(super) fn remove(pins: &Path) -> Result<(), LoadError> {
    if !pins.is_dir() {
        return Ok(());
    }
    // Links before maps: the hooks stop before what they read goes.
    for layout in directories(pins)? {
        detach(&layout.join("links"))?;
    }
    let marked = pins.join(MOUNT_MARK).is_dir();
    for directory in directories(pins)? {
        remove_dir(&directory)?;
    }
    let mountpoint = mountpoint(pins);
    if mountpoint != pins {
        remove_dir(pins)?;
    }
    if marked && directories(mountpoint)?.is_empty() {
        // Lazily: it is empty, and another process may just look at it.
        umount2(mountpoint, MntFlags::MNT_DETACH).map_err(|source| file("unmount", mountpoint, source.into()))?;
        if mountpoint == pins {
            remove_dir(pins)?;
        }
    }
    Ok(())
}

/// Pins `link` where an earlier one may be. The rename releases the earlier one once the new one is attached.
pub(super) fn pin_over(link: FdLink, path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // No dot: a bpffs refuses names with one.
    let new = path.with_file_name(format!("{}-new", path.file_name().unwrap_or_default().to_string_lossy()));
    if new.exists() {
        // An agent ended between the two steps; its newer link is in force and takes its place.
        fs::rename(&new, path)?;
    }
    link.pin(&new)?;
    fs::rename(&new, path)?;
    Ok(())
}

/// Unpins every link of a directory. When this returns the hooks are detached: this process closes the last reference,
/// since the kernel detaches a link whose last reference was a pin only some time later.
fn detach(links: &Path) -> Result<(), LoadError> {
    if !links.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(links).map_err(|source| file("read", links, source))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| LoadError::Detach { path: path.clone(), source };
        let link = PinnedLink::from_pin(&path).map_err(|source| failed(source.into()))?;
        drop(link.unpin().map_err(|source| failed(source.into()))?);
    }
    Ok(())
}

/// The directory of this layout of maps and links.
pub(in crate::proxy) fn layout(pins: &Path) -> PathBuf {
    pins.join(format!("v{LAYOUT_VERSION}"))
}

/// Detaches and unpins what agents with another layout version left.
pub(super) fn remove_other_layouts(pins: &Path) -> Result<(), LoadError> {
    for directory in directories(pins)? {
        if directory != layout(pins) && !directory.ends_with(MOUNT_MARK) {
            detach(&directory.join("links"))?;
            remove_dir(&directory)?;
        }
    }
    Ok(())
}

/// Makes sure that `pins` is on a bpffs: mounts one where none is, and marks that.
pub(super) fn ensure_bpffs(pins: &Path) -> Result<(), LoadError> {
    let mountpoint = mountpoint(pins);
    create_dir(mountpoint)?;
    let is_bpffs =
        statfs(mountpoint).map_err(|source| file("stat", mountpoint, source.into()))?.filesystem_type() == BPF_FS_MAGIC;
    if is_bpffs {
        return create_dir(pins);
    }
    mount(Some("bpf"), mountpoint, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|source| file("mount a bpffs at", mountpoint, source.into()))?;
    create_dir(&pins.join(MOUNT_MARK))
}

/// Where the bpffs of `pins` is mounted: at the usual place, or at `pins` itself.
fn mountpoint(pins: &Path) -> &Path {
    let usual = Path::new("/sys/fs/bpf");
    if pins.starts_with(usual) { usual } else { pins }
}

fn directories(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let entries = fs::read_dir(path).map_err(|source| file("read", path, source))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// Creates a directory and its parents.
pub(super) fn create_dir(path: &Path) -> Result<(), LoadError> {
    fs::create_dir_all(path).map_err(|source| file("create", path, source))
}

fn remove_dir(path: &Path) -> Result<(), LoadError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(file("remove", path, source)),
        _ => Ok(()),
    }
}

/// An error of a file operation.
pub(super) fn file(operation: &'static str, path: &Path, source: io::Error) -> LoadError {
    LoadError::File { operation, path: path.to_owned(), source }
}
