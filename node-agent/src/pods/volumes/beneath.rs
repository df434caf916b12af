//! Opens what is in a directory that containers write to, while they do: the kernel resolves the path, and neither a
//! link nor a rename that comes in between leads out of the directory.
//!
//! What is opened stays the same file whatever happens to its name. All that follows goes through its descriptor.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

/// The kernel answers `EAGAIN` where something was renamed while it resolved a `..`; one who does so all the time gets
/// an error.
const TRIES: usize = 64;

/// Opens the directory itself, for [`open_beneath`] alone (`O_PATH`).
pub fn open_root(directory: &Path) -> io::Result<OwnedFd> {
    Ok(open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens `path` in `root`, with links followed as long as they stay in it: an absolute one leaves it, as does `..` at
/// its top (`EXDEV`). `RESOLVE_BENEATH` rather than `RESOLVE_IN_ROOT`, which would take `/etc` for `etc` in the volume:
/// a link that means something else in the container is refused, not guessed at. Needs Linux 5.6.
pub fn open_beneath(root: impl AsFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Opens `path` in `root` (`O_PATH`) with no link followed: `ELOOP` where a directory on the way is one. A link at the
/// end of the path is itself opened, unless `flags` ask for a directory.
pub fn open_without_links(root: impl AsFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | flags;
    resolve(root, path, flags, ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// The path by which this process reaches what is open, whatever it is called meanwhile.
pub fn path_of(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn resolve(root: impl AsFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    let again = |result: &nix::Result<OwnedFd>| matches!(result, Err(Errno::EAGAIN | Errno::EINTR));
    let mut result = openat2(root.as_fd(), path, how);
    for _ in 1..TRIES {
        if !again(&result) {
            break;
        }
        result = openat2(root.as_fd(), path, how);
    }
    Ok(result?)
}
