//! Which directories of a volume are still to be read. Those that are being read lie in one another; deeper ones are
//! remembered by their paths, as far as there is room.

use std::{
    fs::{self, ReadDir},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::{
    super::beneath::{open_without_links, path_of},
    Count, Incomplete,
};

/// Directories that are read at one time, each in the one before: two file descriptors each, and 32 KiB.
pub const MOST_OPEN: usize = 16;

/// Which directories are still to be read.
pub struct Walk {
    root: OwnedFd,
    /// Being read, each in the one before.
    open: Vec<OpenDirectory>,
    /// Of the last of `open`, from the root.
    path: PathBuf,
    /// Bytes of the path of the first of `open`: there is no room for them in `deeper`.
    first: usize,
    /// Deeper ones, by their paths from the root.
    deeper: Vec<PathBuf>,
    /// Bytes that there still is room for in `deeper`.
    room: usize,
}

struct OpenDirectory {
    fd: OwnedFd,
    entries: ReadDir,
}

/// What a step came to.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// More may follow.
    Walked,
    /// Every directory was read.
    Ended,
}

impl Walk {
    /// Of the directory `root`, with room for so many bytes of paths.
    pub fn new(root: OwnedFd, room: usize) -> Self {
        let top = PathBuf::new();
        let room = room.saturating_sub(cost(length(&top)));
        Self { root, open: Vec::new(), path: PathBuf::new(), first: 0, room, deeper: vec![top] }
    }

    /// Goes on by one entry, or by one directory. An error is of what it comes to: the next step passes it over.
    pub fn step(&mut self, count: &mut Count) -> io::Result<Step> {
        let may_open = self.open.len() < MOST_OPEN;
        let Some(directory) = self.open.last_mut() else {
            // Of the one before, nothing is open any more.
            self.room = self.room.saturating_add(std::mem::take(&mut self.first));
            let Some(path) = self.deeper.pop() else { return Ok(Step::Ended) };
            self.first = length(&path);
            self.room = self.room.saturating_add(size_of::<PathBuf>());
            self.path = path;
            let directory = OpenDirectory::read(open_deep(&self.root, &self.path)?)?;
            // Room for what is opened in it: else it would take twice as much for the first name.
            self.path.reserve_exact(MOST_OPEN.saturating_mul(LONGEST_NAME));
            self.open.push(directory);
            return Ok(Step::Walked);
        };
        let entry = match directory.entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => {
                // Else it might be the same error for ever.
                self.close();
                return Err(error);
            }
            None => {
                self.close();
                return Ok(Step::Walked);
            }
        };
        let metadata = entry.metadata()?;
        count.add(&metadata);
        if !metadata.is_dir() || metadata.dev() != count.device {
            return Ok(Step::Walked);
        }
        let name = entry.file_name();
        if may_open {
            let opened = OpenDirectory::read(open_directory(&directory.fd, Path::new(&name))?)?;
            self.open.push(opened);
            self.path.push(&name);
            return Ok(Step::Walked);
        }
        // With the slash between them.
        let length = length(&self.path).saturating_add(1).saturating_add(name.len());
        if let Some(room) = self.room.checked_sub(cost(length)) {
            self.room = room;
            let mut path = PathBuf::with_capacity(length);
            path.push(&self.path);
            path.push(&name);
            self.deeper.push(path);
        } else {
            count.is_incomplete(Incomplete::TooManyDirectories);
        }
        Ok(Step::Walked)
    }

    fn close(&mut self) {
        self.open.pop();
        self.path.pop();
    }
}

impl OpenDirectory {
    fn read(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { entries: fs::read_dir(path_of(&fd))?, fd })
    }
}

fn length(path: &Path) -> usize {
    path.as_os_str().len()
}

/// Bytes that a path of this length takes in memory, about.
fn cost(length: usize) -> usize {
    length.saturating_add(size_of::<PathBuf>())
}

fn open_directory(parent: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    open_without_links(parent, path, OFlag::O_DIRECTORY)
}

/// Opens a directory of the volume, however long its path is: a container can make paths that are longer than the
/// kernel resolves at once.
fn open_deep(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut opened = open_directory(root, Path::new("."))?;
    let mut part = PathBuf::new();
    for name in path {
        if part.as_os_str().as_bytes().len() > LONGEST_PART {
            opened = open_directory(&opened, &part)?;
            part.clear();
        }
        part.push(name);
    }
    if part.as_os_str().is_empty() { Ok(opened) } else { open_directory(&opened, &part) }
}

/// How long a path may be before its next name; the kernel takes 4,096 bytes.
const LONGEST_PART: usize = 1024;
/// A name and its slash, on Linux' file systems.
const LONGEST_NAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::{super::super::beneath::open_root, *};

    #[test]
    fn all_paths_that_are_kept_are_within_the_bound() {
        const ROOM: usize = 1 << 20;
        let directory = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", 3 * MOST_OPEN).collect();
        for number in 0..10 {
            fs::create_dir_all(directory.path().join(&deep).join(format!("{number}/e/f"))).unwrap();
        }
        let mut count = Count::new(&fs::metadata(directory.path()).unwrap(), 0);
        let mut walk = Walk::new(open_root(directory.path()).unwrap(), ROOM);
        let mut longest = 0;
        while matches!(walk.step(&mut count).unwrap(), Step::Walked) {
            let kept: usize = walk.deeper.iter().map(|path| cost(path.capacity())).sum();
            assert!(kept + walk.first + walk.room <= ROOM);
            assert!(walk.path.capacity() <= walk.first + MOST_OPEN * LONGEST_NAME);
            longest = longest.max(walk.path.components().count());
        }
        assert_eq!(longest, 3 * MOST_OPEN + 3, "all were opened, by their whole paths");
        assert_eq!(walk.room, ROOM, "and all room is there again");
    }
}
