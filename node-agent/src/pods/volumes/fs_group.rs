//! Gives a volume to the pod's `fsGroup`: its files are the group's, and so is what is made in it later.
//!
//! Containers may be at work in the volume (the agent was started again), so nothing is changed by its path: a file
//! is opened without following a link, and changed through its descriptor.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{SFlag, fstat},
    unistd::{Gid, fchownat},
};

use super::beneath;

/// What the group may do with the files. Source: `SetVolumeOwnership` of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupAccess {
    /// Files that the agent makes: containers do not change them.
    Read,
    /// Everything.
    Write,
}

impl GroupAccess {
    /// Permission bits that every file gets.
    pub fn bits(self) -> u32 {
        match self {
            Self::Read => 0o440,
            Self::Write => 0o660,
        }
    }
}

/// Gives `directory`, and all below it, to `group`.
pub fn set_group(directory: &Path, group: u32, access: GroupAccess) -> io::Result<()> {
    let root = beneath::open_root(directory)?;
    give(&root, group, access)?;
    // Directories whose entries are still to be looked at, by their path in the root: one descriptor is open at a time,
    // however deep a container made them.
    let mut open = vec![PathBuf::from(".")];
    while let Some(path) = open.pop() {
        let opened = beneath::open_without_links(&root, &path, OFlag::O_DIRECTORY);
        let Some(directory) = unless_gone(opened)? else { continue };
        for entry in fs::read_dir(beneath::path_of(&directory))? {
            let path = path.join(entry?.file_name());
            let Some(file) = unless_gone(beneath::open_without_links(&root, &path, OFlag::empty()))? else { continue };
            if give(&file, group, access)? {
                open.push(path);
            }
        }
    }
    Ok(())
}

/// Nothing, where a container removed or replaced what was listed a moment ago.
fn unless_gone(opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    let gone = [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP].map(|errno| errno as i32);
    match opened {
        Err(error) if error.raw_os_error().is_some_and(|code| gone.contains(&code)) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Gives one file to the group; says whether it is a directory.
fn give(file: &OwnedFd, group: u32, access: GroupAccess) -> io::Result<bool> {
    let mode = fstat(file)?.st_mode;
    let kind = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fchownat(file, c"", None, Some(Gid::from_raw(group)), AtFlags::AT_EMPTY_PATH)?;
    let is_dir = kind == SFlag::S_IFDIR;
    if kind != SFlag::S_IFLNK {
        const SET_GROUP_ID: u32 = 0o2000;
        let wider = mode | access.bits() | if is_dir { 0o110 | SET_GROUP_ID } else { 0 };
        // A descriptor of O_PATH takes no fchmod, and to open a device for more would have effects.
        fs::set_permissions(beneath::path_of(file), fs::Permissions::from_mode(wider & 0o7777))?;
    }
    Ok(is_dir)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{MetadataExt, symlink},
        sync::atomic::{AtomicBool, Ordering},
    };

    use nix::{
        fcntl::{AT_FDCWD, RenameFlags, renameat2},
        unistd::{getegid, geteuid, mkfifo},
    };

    use super::*;

    #[test]
    fn everything_below_is_the_groups_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (volume, outside) = (directory.path().join("v"), directory.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        for path in [volume.join("a/b/c"), outside.clone()] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(&outside, volume.join("link")).unwrap();
        // To open it for reading would wait for a writer.
        mkfifo(&volume.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        set_group(&volume, getegid().as_raw(), GroupAccess::Write).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&volume.join("a/b/c")), 0o660);
        assert_eq!(mode(&volume.join("a/b")) & 0o2770, 0o2770);
        assert_eq!(mode(&volume.join("fifo")), 0o760);
        assert_eq!(mode(&outside), 0o600);
    }

    /// A container swaps a file for a link to one outside, and back, while the agent gives the volume to the group.
    #[test]
    fn a_file_that_becomes_a_link_meanwhile_changes_nothing_outside() {
        if !geteuid().is_root() {
            crate::skipped::skipped("only root gives files to groups that it is not in");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (volume, outside) = (directory.path().join("v"), directory.path().join("outside"));
        fs::create_dir_all(volume.join("dir")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        for path in [volume.join("file"), volume.join("dir/x"), outside.join("x")] {
            fs::write(path, "").unwrap();
        }
        symlink(outside.join("x"), volume.join("link")).unwrap();
        symlink(&outside, volume.join("dirlink")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let swap = |a: &str, b: &str| {
                    let (a, b) = (volume.join(a), volume.join(b));
                    renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
                };
                while !done.load(Ordering::Relaxed) {
                    swap("file", "link");
                    swap("dir", "dirlink");
                }
            });
            let outcome: io::Result<()> = (0..5_000).try_for_each(|_| set_group(&volume, 4242, GroupAccess::Write));
            done.store(true, Ordering::Relaxed);
            outcome.unwrap();
        });
        for path in [outside.clone(), outside.join("x")] {
            assert_ne!(fs::metadata(&path).unwrap().gid(), 4242, "{}", path.display());
        }
    }
}
