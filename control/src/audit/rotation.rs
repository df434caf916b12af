//! A file of lines that is replaced by a new one before it becomes too large. What becomes of the older ones: see
//! `retention.rs`.
//!
//! Names are those of kube-apiserver: `audit.log` becomes `audit-2026-01-02T15-04-05.000.log`, in UTC. No line is ever
//! split: one that is longer than a file may be has a file of its own.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};

/// The file that lines are appended to.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    file: File,
    max_size: u64,
    /// A line was written in part, by a service that crashed, or could not be taken back.
    torn: bool,
    /// When it could not be replaced.
    failed_at: Option<Timestamp>,
}

impl RotatingFile {
    /// Opens the file, or makes it, with its directory: nobody else may read what is made. As in Kubernetes, a file
    /// that is there keeps its mode.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(path: &Path, max_size: u64) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = open(path)?;
        let torn = ends_within_a_line(path, &file)?;
        Ok(Self { path: path.into(), file, max_size, torn, failed_at: None })
    }

    /// Whether others than its owner may read or write it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_open_to_others(&self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        Ok(metadata.is_file() && metadata.permissions().mode() & 0o066 != 0)
    }

    /// Replaces the file where so many bytes more would be too much. Answers whether that was done.
    ///
    /// # Errors
    /// What the kernel says. The file stays as it is, takes more, and is replaced later; not each time is it tried.
    pub fn make_room(&mut self, bytes: usize, now: Timestamp) -> io::Result<bool> {
        // Asked for each time: somebody else may have emptied the file.
        let size = self.size()?;
        let is_full = size > 0 && size.saturating_add(bytes as u64) > self.max_size;
        let waits = self.failed_at.is_some_and(|at| now.duration_since(at).abs() < ROTATED_AGAIN_AFTER);
        if !is_full || waits {
            return Ok(false);
        }
        let done = self.rotate(now);
        self.failed_at = done.is_err().then_some(now);
        done.map(|()| true)
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// What the kernel says. Nothing of the lines is left in the file then, as far as that can be had.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut size = self.size()?;
        if self.torn {
            self.file.write_all(b"\n")?;
            (size, self.torn) = (size.saturating_add(1), false);
        }
        if let Err(error) = self.file.write_all(lines) {
            self.torn = !self.take_back(size);
            return Err(error);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Takes back what was written beyond `size`. A file that became smaller meanwhile is not made longer.
    fn take_back(&self, size: u64) -> bool {
        self.size().is_ok_and(|now| now <= size || self.file.set_len(size).is_ok())
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let backup = self.backup(now);
        let is_moved = match fs::rename(&self.path, &backup) {
            // Somebody else moved it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            moved => moved.map(|()| true)?,
        };
        match open(&self.path) {
            Ok(file) => (self.file, self.torn) = (file, false),
            Err(error) => {
                // What is written until the next try would be compressed or removed with an older file.
                if is_moved && !self.path.exists() {
                    fs::rename(&backup, &self.path)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// A name that no file has: two may be begun in one millisecond.
    fn backup(&self, now: Timestamp) -> PathBuf {
        let (prefix, extension) = name_parts(&self.path);
        let mut at = now;
        loop {
            let path = self.path.with_file_name(format!("{prefix}{}{extension}", backup_time(at)));
            let packed = self.path.with_file_name(format!("{prefix}{}{extension}{PACKED}", backup_time(at)));
            match (path.exists() || packed.exists(), at.checked_add(SignedDuration::from_millis(1))) {
                (true, Ok(next)) => at = next,
                _ => return path,
            }
        }
    }
}

/// When a file that could not be replaced is tried again.
const ROTATED_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// What the names of compressed files end with.
pub const PACKED: &str = ".gz";
/// When a file was replaced, in its name.
pub const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// The same, as a text.
pub fn backup_time(at: Timestamp) -> String {
    at.strftime(BACKUP_TIME).to_string()
}

/// What the names of older files begin and end with.
pub fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (format!("{}-", text(path.file_stem()).unwrap_or_default()), extension)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Whether the file does not end with a line's end: the next line would become a part of the last one.
fn ends_within_a_line(path: &Path, file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let Some(last) = metadata.len().checked_sub(1).filter(|_| metadata.is_file()) else { return Ok(false) };
    let mut end = [0];
    File::open(path)?.read_exact_at(&mut end, last)?;
    Ok(end != *b"\n")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_323_045 + second).unwrap()
    }

    pub fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Appends as the log does. Answers whether the file was replaced before.
    pub fn append(file: &mut RotatingFile, line: &[u8], now: Timestamp) -> bool {
        let replaced = file.make_room(line.len(), now).unwrap();
        file.append(line).unwrap();
        replaced
    }

    #[test]
    fn a_file_is_replaced_before_it_becomes_too_large_and_no_line_is_split() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("audit.log");
        let mut file = RotatingFile::open(&path, 10).unwrap();
        let replaced: Vec<bool> =
            [b"12345\n", b"12345\n", b"12345\n"].iter().map(|line| append(&mut file, &line[..], at(0))).collect();
        assert_eq!(replaced, [false, true, true]);
        let expected = ["audit-2026-01-02T03-04-05.000.log", "audit-2026-01-02T03-04-05.001.log", "audit.log"];
        assert_eq!(names(path.parent().unwrap()), expected);
        assert!(append(&mut file, b"longer than a file may be\n", at(1)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "longer than a file may be\n");
        let mut again = RotatingFile::open(&path, 30).unwrap();
        assert!(append(&mut again, b"12345\n", at(2)), "what was there counts");
    }

    #[test]
    fn half_a_line_of_a_service_that_crashed_does_not_swallow_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        for (before, expected) in [("", "two\n"), ("one\n", "one\ntwo\n"), ("one\nha", "one\nha\ntwo\n")] {
            fs::write(&path, before).unwrap();
            append(&mut RotatingFile::open(&path, 100).unwrap(), b"two\n", at(0));
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
    }

    #[test]
    fn a_file_that_cannot_be_replaced_takes_more_and_is_replaced_later() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("new").join("audit.log"), dir.path().join("moved"));
        let mut file = RotatingFile::open(&path, 5).unwrap();
        append(&mut file, b"one\n", at(0));
        // Its name cannot be taken: no directory is there.
        fs::rename(path.parent().unwrap(), &moved).unwrap();
        fs::write(path.parent().unwrap(), "").unwrap();
        assert!(file.make_room(4, at(1)).is_err());
        file.append(b"two\n").unwrap();
        assert!(!append(&mut file, b"three\n", at(2)), "it is not tried each time");
        assert_eq!(fs::read_to_string(moved.join("audit.log")).unwrap(), "one\ntwo\nthree\n");
        fs::remove_file(path.parent().unwrap()).unwrap();
        fs::rename(&moved, path.parent().unwrap()).unwrap();
        assert!(append(&mut file, b"four\n", at(61)));
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(path.parent().unwrap()).len()), ("four\n", 2));
    }

    #[test]
    fn a_file_that_others_may_read_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        assert!(!RotatingFile::open(&path, 5).unwrap().is_open_to_others().unwrap(), "it was made now");
        for (mode, expected) in [(0o640, true), (0o602, true), (0o700, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(RotatingFile::open(&path, 5).unwrap().is_open_to_others().unwrap(), expected, "{mode:o}");
        }
    }

    #[test]
    fn a_file_that_somebody_else_emptied_has_the_size_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = RotatingFile::open(&path, 10).unwrap();
        assert!(!append(&mut file, b"12345678\n", at(0)));
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(!append(&mut file, b"12345678\n", at(0)), "there is room in it");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path()).len()), ("12345678\n", 1));
        File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
        assert!(file.take_back(9), "there is nothing to be taken back");
        assert_eq!(fs::read(&path).unwrap(), b"12", "nothing is filled up with zeros");
    }
}
