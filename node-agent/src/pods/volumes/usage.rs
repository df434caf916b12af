//! How many bytes of disk a volume takes, as `du` counts them: blocks of each file once, on one file system.

use std::{
    collections::HashSet,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use nix::fcntl::OFlag;

use super::beneath::{open_root, open_without_links, path_of};

/// Bytes of a block, whatever the file system's own are.
const BLOCK: u64 = 512;
/// A directory whose path is longer is opened, and what is in it by its descriptor: a container can make paths that are
/// longer than the kernel resolves at once.
const LONGEST_PATH: usize = 1024;

/// What a volume takes.
#[derive(Debug)]
pub struct Usage {
    /// What was counted.
    pub bytes: u64,
    /// Why there may be more; `None` where all was counted, or enough.
    pub incomplete: Option<Incomplete>,
}

/// Why not all of a volume was counted.
#[derive(Debug, thiserror::Error)]
pub enum Incomplete {
    /// A part of it could not be read; the first failure is given for all.
    #[error("cannot read a part of the volume")]
    Unreadable(#[source] io::Error),
    /// It has too many files.
    #[error("the volume was not counted in time")]
    TimedOut,
}

/// Bytes in use in `directory`, which containers may write to meanwhile. It counts until there are more than `enough`,
/// or until `deadline`. Reads each directory in it: call it on a blocking thread. What goes while it is counted is
/// passed over; no link is followed. Fails where the directory itself cannot be opened.
pub fn used_bytes(directory: &Path, enough: u64, deadline: Instant) -> io::Result<Usage> {
    let root = open_root(directory)?;
    let top = fs::metadata(path_of(&root))?;
    let mut count = Count { device: top.dev(), blocks: top.blocks(), counted: HashSet::new(), unreadable: None };
    let mut directories = vec![(Rc::new(root), PathBuf::from("."))];
    while let Some(next) = directories.pop() {
        if count.bytes() > enough {
            return Ok(Usage { bytes: count.bytes(), incomplete: None });
        }
        match count.add_directory(next, &mut directories, deadline) {
            Ok(()) => {}
            Err(Stopped::TimedOut) => {
                return Ok(Usage { bytes: count.bytes(), incomplete: Some(Incomplete::TimedOut) });
            }
            Err(Stopped::Unreadable(error)) if went(&error) => {}
            Err(Stopped::Unreadable(error)) => count.unreadable = count.unreadable.or(Some(error)),
        }
    }
    Ok(Usage { bytes: count.bytes(), incomplete: count.unreadable.map(Incomplete::Unreadable) })
}

/// A directory: one that is open, and the path from there.
type Place = (Rc<OwnedFd>, PathBuf);

struct Count {
    device: u64,
    blocks: u64,
    /// Files with several names, by their number.
    counted: HashSet<u64>,
    /// The first failure.
    unreadable: Option<io::Error>,
}

/// Why a directory was not counted to its end.
enum Stopped {
    TimedOut,
    Unreadable(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl Count {
    fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK)
    }

    /// Counts what is in one directory; those in it are added to `found`.
    fn add_directory(&mut self, (root, path): Place, found: &mut Vec<Place>, deadline: Instant) -> Result<(), Stopped> {
        let opened = Rc::new(open_without_links(&root, &path, OFlag::O_DIRECTORY)?);
        let (root, path) = match path.as_os_str().len() > LONGEST_PATH {
            true => (opened.clone(), PathBuf::from(".")),
            false => (root, path),
        };
        for entry in fs::read_dir(path_of(&opened))? {
            if Instant::now() >= deadline {
                return Err(Stopped::TimedOut);
            }
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if went(&error) => continue,
                Err(error) => {
                    self.unreadable.get_or_insert(error);
                    continue;
                }
            };
            let is_again = metadata.nlink() > 1 && !metadata.is_dir() && !self.counted.insert(metadata.ino());
            if metadata.dev() != self.device || is_again {
                continue;
            }
            self.blocks = self.blocks.saturating_add(metadata.blocks());
            if metadata.is_dir() {
                found.push((root.clone(), path.join(entry.file_name())));
            }
        }
        Ok(())
    }
}

/// It was removed, or something else took its place.
fn went(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::ENOENT, libc::ELOOP, libc::ENOTDIR, libc::ESTALE].into_iter().any(|one| number == Some(one))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::{
        fcntl::openat,
        sys::stat::{Mode, mkdirat},
    };

    use super::*;

    fn used(directory: &Path) -> u64 {
        let usage = used_bytes(directory, u64::MAX, Instant::now() + Duration::from_secs(60)).unwrap();
        assert!(usage.incomplete.is_none(), "{usage:?}");
        usage.bytes
    }

    #[test]
    fn files_count_once_and_what_links_lead_to_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let (volume, elsewhere) = (directory.path().join("volume"), directory.path().join("elsewhere"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("large"), vec![1; 4 << 20]).unwrap();
        let empty = used(&volume);
        fs::write(volume.join("a/b/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(volume.join("a/b/file"), volume.join("again")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, volume.join("link")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("large"), volume.join("a/link")).unwrap();
        // A file of holes takes no blocks.
        fs::File::create(volume.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let taken = used(&volume) - empty;
        assert!((1 << 20..2 << 20).contains(&taken), "{taken}");
        let none = directory.path().join("none");
        assert!(used_bytes(&none, u64::MAX, Instant::now()).is_err());
    }

    #[test]
    fn what_lies_deeper_than_a_path_can_say_counts() {
        let directory = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut deepest = open_root(directory.path()).unwrap();
        // 8,000 bytes; the kernel takes 4,096 at a time.
        for _ in 0..40 {
            mkdirat(&deepest, &*name, Mode::S_IRWXU).unwrap();
            deepest = openat(&deepest, &*name, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        fs::write(path_of(&deepest).join("file"), vec![1; 1 << 20]).unwrap();
        assert!(used(directory.path()) >= 1 << 20);
    }

    #[test]
    fn counting_ends_when_there_is_enough_or_its_time_is_over() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("file"), vec![1; 1 << 20]).unwrap();
        }
        let later = Instant::now() + Duration::from_secs(60);
        let usage = used_bytes(directory.path(), 1 << 20, later).unwrap();
        assert!(usage.bytes > 1 << 20 && usage.bytes < 3 << 20 && usage.incomplete.is_none(), "{usage:?}");
        let usage = used_bytes(directory.path(), u64::MAX, Instant::now()).unwrap();
        assert!(matches!(usage.incomplete, Some(Incomplete::TimedOut)), "{usage:?}");
    }
}
