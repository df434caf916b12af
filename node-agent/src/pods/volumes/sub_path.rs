//! `subPath`: a path inside a volume, wherever its links lead, but never out of it.
//!
//! Containers may write to the volume while the path is resolved, so a name that was checked means nothing a moment
//! later. The path is opened once ([`beneath`]), and what is open is bound to a place that no container sees; the
//! runtime gets that place.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat},
};

use super::{beneath, unmount_all};
use crate::runtime::Propagation;

/// Binds `sub_path` of `volume` at `target`, in the place of what an earlier instance of the container had there. The
/// path is made, as directories, where there is nothing.
pub fn bind(volume: &Path, sub_path: &str, target: &Path, propagation: Propagation) -> io::Result<()> {
    let source = open(volume, sub_path)?;
    unmount_all(target)?;
    make_target(target, is_dir(&source)?)?;
    mount(Some(&beneath::path_of(&source)), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let what_host_sees = match propagation {
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::HostToContainer => MsFlags::MS_SLAVE,
        Propagation::Bidirectional => return Ok(()),
    };
    Ok(mount(None::<&str>, target, None::<&str>, what_host_sees, None::<&str>)?)
}

/// Opens the path (`O_PATH`), made as directories where there is nothing.
fn open(volume: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let outside =
        || io::Error::new(io::ErrorKind::PermissionDenied, format!("subPath {sub_path:?} leads out of its volume"));
    let relative = Path::new(sub_path);
    if relative.is_absolute() || relative.components().any(|part| part == Component::ParentDir) {
        return Err(outside());
    }
    let root = beneath::open_root(volume)?;
    let opened = match beneath::open_beneath(&root, relative, OFlag::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&root, relative),
        opened => opened,
    };
    opened.map_err(|error| if error.raw_os_error() == Some(Errno::EXDEV as i32) { outside() } else { error })
}

/// Makes the directories of `relative` that are missing, with the volume's own mode, as Kubernetes does.
fn make(root: &OwnedFd, relative: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::from_bits_truncate(fstat(root)?.st_mode);
    let mut parent = root.try_clone()?;
    let mut walked = std::path::PathBuf::new();
    for part in relative.components() {
        walked.push(part);
        let find = || beneath::open_beneath(root, &walked, OFlag::O_PATH | OFlag::O_DIRECTORY);
        parent = match find() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match mkdirat(&parent, Path::new(&part), Mode::S_IRWXU) {
                    Ok(()) => {
                        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                        let made = openat(&parent, Path::new(&part), flags, Mode::empty())?;
                        fchmod(&made, mode)?;
                        made
                    }
                    // Another container of the pod was quicker, or it is a link to nothing: that is still not found.
                    Err(Errno::EEXIST) => find()?,
                    Err(error) => return Err(error.into()),
                }
            }
            found => found?,
        };
    }
    Ok(parent)
}

/// An empty directory or file to mount on.
fn make_target(target: &Path, directory: bool) -> io::Result<()> {
    match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() == directory => return Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir(target)?,
        Ok(_) => fs::remove_file(target)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if directory {
        return fs::create_dir_all(target);
    }
    target.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::File::create(target).map(drop)
}

fn is_dir(fd: &OwnedFd) -> io::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        sync::atomic::{AtomicBool, Ordering},
    };

    use nix::fcntl::{RenameFlags, renameat2};

    use super::*;

    /// The file that is open, by which it can be told from others.
    fn identity(opened: &OwnedFd) -> (u64, u64) {
        let stat = fstat(opened).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    fn identity_of(path: &Path) -> (u64, u64) {
        let meta = fs::metadata(path).unwrap();
        (meta.dev(), meta.ino())
    }

    #[test]
    fn links_inside_are_followed_and_links_outside_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("v");
        fs::create_dir_all(volume.join("real")).unwrap();
        symlink("real", volume.join("link")).unwrap();
        symlink("/etc", volume.join("etc")).unwrap();
        symlink("nothing", volume.join("dangling")).unwrap();
        assert_eq!(identity(&open(&volume, "link").unwrap()), identity_of(&volume.join("real")));
        assert_eq!(identity(&open(&volume, "link/new/deep").unwrap()), identity_of(&volume.join("real/new/deep")));
        for path in ["etc/passwd", "etc", "etc/new", "../x", "/etc", "dangling", "dangling/x"] {
            assert!(open(&volume, path).is_err(), "{path}");
        }
        assert!(!Path::new("/etc/new").exists());
    }

    #[test]
    fn a_directory_that_is_made_has_the_volumes_mode() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o2777)).unwrap();
        open(directory.path(), "a/b").unwrap();
        for path in ["a", "a/b"] {
            let meta = fs::metadata(directory.path().join(path)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, 0o2777, "{path}");
        }
    }

    /// A container swaps a directory for a link out of the volume, and back, while the path is resolved.
    #[test]
    fn a_directory_that_becomes_a_link_meanwhile_does_not_lead_out() {
        let directory = tempfile::tempdir().unwrap();
        let (volume, outside) = (directory.path().join("v"), directory.path().join("outside"));
        fs::create_dir_all(volume.join("dir/sub")).unwrap();
        fs::create_dir_all(outside.join("sub")).unwrap();
        symlink(&outside, volume.join("swap")).unwrap();
        let (secret, done) = (identity_of(&outside.join("sub")), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let here = nix::fcntl::AT_FDCWD;
                while !done.load(Ordering::Relaxed) {
                    let (a, b) = (volume.join("dir"), volume.join("swap"));
                    renameat2(here, &a, here, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            let mut led_out = 0;
            for turn in 0..20_000 {
                for path in ["dir/sub".to_owned(), format!("dir/new{}", turn % 100)] {
                    // A refusal is right, too: at that moment it was a link.
                    led_out += usize::from(open(&volume, &path).is_ok_and(|opened| identity(&opened) == secret));
                }
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(led_out, 0);
        });
        let made: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(made, ["sub"], "nothing was made outside");
    }

    #[test]
    fn what_is_bound_stays_what_it_was_and_is_replaced_by_the_next_instance() {
        if !nix::unistd::geteuid().is_root() {
            crate::skipped::skipped("only root mounts");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (volume, target) = (directory.path().join("v"), directory.path().join("sub/v/app/0"));
        fs::create_dir_all(volume.join("a")).unwrap();
        fs::write(volume.join("a/x"), "1").unwrap();
        bind(&volume, "a", &target, Propagation::HostToContainer).unwrap();
        fs::rename(volume.join("a"), volume.join("b")).unwrap();
        symlink("/etc", volume.join("a")).unwrap();
        assert_eq!(fs::read_to_string(target.join("x")).unwrap(), "1");
        assert!(bind(&volume, "a", &target, Propagation::Private).is_err());
        bind(&volume, "b/x", &target, Propagation::Private).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "1", "a file, where a directory was");
        unmount_all(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "");
    }
}
