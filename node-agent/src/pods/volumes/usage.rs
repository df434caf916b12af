//! How many bytes of disk a volume takes, as `du` counts them: blocks of each file once, on one file system.
//!
//! Containers make what is counted, so everything that is remembered has a bound: directories are read while they are
//! walked, to a certain depth each at the place where it was found; the paths of those that lie deeper, and the numbers
//! of files with several names, are kept as far as there is room.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::Instant,
};

use self::walk::{Step, Walk};
use super::beneath::{open_root, path_of};

mod walk;

/// Bytes of a block, whatever the file system's own are.
const BLOCK: u64 = 512;

/// What may be remembered of a volume.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Bytes of paths.
    paths: usize,
    /// Files with several names.
    linked: usize,
}

/// Some 10 MiB together.
const BOUNDS: Bounds = Bounds { paths: 4 << 20, linked: 1 << 18 };

/// What a volume takes.
#[derive(Debug)]
pub struct Usage {
    /// What was counted.
    pub bytes: u64,
    /// Why there may be more; `None` where all was counted, or enough.
    pub incomplete: Option<Incomplete>,
}

/// Why not all of a volume was counted. The first reason is given for all.
#[derive(Debug, thiserror::Error)]
pub enum Incomplete {
    /// A part of it could not be read.
    #[error("cannot read a part of the volume")]
    Unreadable(#[source] io::Error),
    /// It has too many files.
    #[error("the volume was not counted in time")]
    TimedOut,
    /// More deep directories than there is room for.
    #[error("the volume has too many directories that lie deep")]
    TooManyDirectories,
    /// More files with several names than there is room for; of the others each name counts as a part.
    #[error("the volume has too many files with several names")]
    TooManyLinks,
}

/// Bytes in use in `directory`, which containers may write to meanwhile. It counts until there are more than `enough`,
/// or until `deadline`. Reads each directory in it: call it on a blocking thread. What goes while it is counted is
/// passed over; no link is followed. Fails where the directory itself cannot be opened.
pub fn used_bytes(directory: &Path, enough: u64, deadline: Instant) -> io::Result<Usage> {
    used_bytes_within(directory, enough, deadline, BOUNDS)
}

fn used_bytes_within(directory: &Path, enough: u64, deadline: Instant, bounds: Bounds) -> io::Result<Usage> {
    let root = open_root(directory)?;
    let top = fs::metadata(path_of(&root))?;
    let mut count = Count::new(&top, bounds.linked);
    let mut walk = Walk::new(root, bounds.paths);
    loop {
        if count.bytes() > enough {
            return Ok(Usage { bytes: count.bytes(), incomplete: None });
        }
        if Instant::now() >= deadline {
            return Ok(Usage { bytes: count.bytes(), incomplete: Some(Incomplete::TimedOut) });
        }
        match walk.step(&mut count) {
            Ok(Step::Walked) => {}
            Ok(Step::Ended) => return Ok(Usage { bytes: count.bytes(), incomplete: count.incomplete }),
            Err(error) if went(&error) => {}
            Err(error) => count.is_incomplete(Incomplete::Unreadable(error)),
        }
    }
}

/// What was counted.
struct Count {
    device: u64,
    blocks: u64,
    /// Files with several names, by their number.
    linked: HashSet<u64>,
    most_linked: usize,
    incomplete: Option<Incomplete>,
}

impl Count {
    fn new(top: &Metadata, most_linked: usize) -> Self {
        Self { device: top.dev(), blocks: top.blocks(), linked: HashSet::new(), most_linked, incomplete: None }
    }

    fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK)
    }

    fn is_incomplete(&mut self, why: Incomplete) {
        self.incomplete.get_or_insert(why);
    }

    /// Counts a file or directory; one of another file system is not of the volume.
    fn add(&mut self, metadata: &Metadata) {
        if metadata.dev() == self.device {
            self.blocks = self.blocks.saturating_add(self.blocks_of(metadata));
        }
    }

    fn blocks_of(&mut self, metadata: &Metadata) -> u64 {
        let (blocks, names) = (metadata.blocks(), metadata.nlink());
        if names < 2 || metadata.is_dir() {
            return blocks;
        }
        if self.linked.len() < self.most_linked {
            return if self.linked.insert(metadata.ino()) { blocks } else { 0 };
        }
        if self.linked.contains(&metadata.ino()) {
            return 0;
        }
        // Its part: all of its names together count no more than the file.
        self.is_incomplete(Incomplete::TooManyLinks);
        blocks.checked_div(names).unwrap_or_default()
    }
}

/// It was removed, or something else took its place.
fn went(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::ENOENT, libc::ELOOP, libc::ENOTDIR, libc::ESTALE].into_iter().any(|one| number == Some(one))
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use nix::{
        fcntl::{OFlag, openat},
        sys::stat::{Mode, mkdirat},
    };

    use super::{walk::MOST_OPEN, *};

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn used(directory: &Path) -> u64 {
        let usage = used_bytes(directory, u64::MAX, later()).unwrap();
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
    fn a_volume_with_very_many_directories_is_counted_with_few_of_them_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..1000 {
            let made = directory.path().join(format!("wide-{number}"));
            fs::create_dir(&made).unwrap();
            fs::write(made.join("file"), vec![1; 4096]).unwrap();
        }
        let usage = used_bytes_within(directory.path(), u64::MAX, later(), Bounds { paths: 0, linked: 0 }).unwrap();
        assert!(usage.bytes >= 1000 * 4096 && usage.incomplete.is_none(), "{usage:?}");
    }

    #[test]
    fn deep_directories_beyond_what_is_remembered_leave_the_count_incomplete_and_hide_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", MOST_OPEN - 1).collect();
        let deep = directory.path().join(deep);
        for number in 0..100 {
            fs::create_dir_all(deep.join(format!("{number:02}"))).unwrap();
            fs::write(deep.join(format!("{number:02}/file")), vec![1; 4096]).unwrap();
        }
        fs::write(directory.path().join("seen"), vec![1; 1 << 20]).unwrap();
        let used = |paths| used_bytes_within(directory.path(), u64::MAX, later(), Bounds { paths, ..BOUNDS }).unwrap();
        let all = used(1 << 20);
        assert!(all.bytes >= (1 << 20) + 100 * 4096 && all.incomplete.is_none(), "{all:?}");
        // Each costs as many bytes as its path has, and those of a `PathBuf`.
        let few = used(10 * (size_of::<PathBuf>() + 2 * MOST_OPEN));
        assert!(matches!(few.incomplete, Some(Incomplete::TooManyDirectories)), "{few:?}");
        let missed = all.bytes - few.bytes;
        assert!((90 * 4096..=90 * 8192).contains(&missed), "{missed}");
        assert!(few.bytes >= 1 << 20);
    }

    #[test]
    fn files_with_several_names_beyond_what_is_remembered_never_count_twice() {
        let directory = tempfile::tempdir().unwrap();
        let empty = used(directory.path());
        for number in 0..10 {
            let name = |of: &str| directory.path().join(format!("{of}-{number}"));
            fs::write(name("one"), vec![1; 1 << 16]).unwrap();
            fs::hard_link(name("one"), name("two")).unwrap();
        }
        let used =
            |linked| used_bytes_within(directory.path(), u64::MAX, later(), Bounds { linked, ..BOUNDS }).unwrap();
        let (all, few) = (used(10), used(3));
        assert!(all.incomplete.is_none() && matches!(few.incomplete, Some(Incomplete::TooManyLinks)), "{few:?}");
        assert!(few.bytes <= all.bytes && few.bytes - empty >= 10 << 16, "{few:?} of {all:?}");
    }

    #[test]
    fn counting_ends_when_there_is_enough_or_its_time_is_over() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("file"), vec![1; 1 << 20]).unwrap();
        }
        fs::write(directory.path().join("a/other"), vec![1; 1 << 20]).unwrap();
        let usage = used_bytes(directory.path(), 1 << 20, later()).unwrap();
        assert!(usage.bytes > 1 << 20 && usage.bytes < 3 << 20 && usage.incomplete.is_none(), "{usage:?}");
        // One directory with many files: it ends within it.
        let usage = used_bytes(&directory.path().join("a"), 1 << 20, later()).unwrap();
        assert!(usage.bytes > 1 << 20 && usage.bytes < 2 << 20, "{usage:?}");
        let usage = used_bytes(directory.path(), u64::MAX, Instant::now()).unwrap();
        assert!(matches!(usage.incomplete, Some(Incomplete::TimedOut)), "{usage:?}");
    }
}
