//! A file of lines that is replaced by a new one before it becomes too large, and what becomes of the older ones.
//!
//! Names are those of kube-apiserver: `audit.log` becomes `audit-2026-01-02T15-04-05.000.log`, in UTC. No line is ever
//! split: one that is longer than a file may be has a file of its own.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, Timestamp, civil::DateTime};

/// The file that lines are appended to.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    file: File,
    max_size: u64,
    /// A line was written in part, and could not be taken back.
    torn: bool,
}

/// Which older files are kept, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackupRetention {
    /// They go after so many days; 0 for never.
    pub max_age_days: u32,
    /// So many are kept; 0 for all.
    pub max_backups: usize,
    /// Whether they are compressed.
    pub compress: bool,
}

/// What is to be done with older files, by their names.
#[derive(Debug, Default, PartialEq, Eq)]
struct RetentionPlan {
    remove: Vec<String>,
    compress: Vec<String>,
}

impl RotatingFile {
    /// Opens the file, or makes it, with its directory: nobody else may read either.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(path: &Path, max_size: u64) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        Ok(Self { path: path.into(), file: open(path)?, max_size, torn: false })
    }

    /// Appends whole lines. Answers whether the file was replaced before.
    ///
    /// # Errors
    /// What the kernel says. Nothing of the lines is left in the file then, as far as that can be had.
    pub fn append(&mut self, lines: &[u8], now: Timestamp) -> io::Result<bool> {
        // Asked for each time: somebody else may have emptied the file.
        let mut size = self.size()?;
        let rotates = size > 0 && size.saturating_add(lines.len() as u64) > self.max_size;
        if rotates {
            self.rotate(now)?;
            size = self.size()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            (size, self.torn) = (size.saturating_add(1), false);
        }
        if let Err(error) = self.file.write_all(lines) {
            self.torn = !self.take_back(size);
            return Err(error);
        }
        Ok(rotates)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Takes back what was written beyond `size`. A file that became smaller meanwhile is not made longer.
    fn take_back(&self, size: u64) -> bool {
        self.size().is_ok_and(|now| now <= size || self.file.set_len(size).is_ok())
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        match fs::rename(&self.path, self.backup(now)) {
            // Somebody else moved it away.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        (self.file, self.torn) = (open(&self.path)?, false);
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

impl BackupRetention {
    /// Removes and compresses what is due of the older files of `path`.
    ///
    /// # Errors
    /// What the kernel says of the first file with which something is wrong.
    pub fn apply(&self, path: &Path, now: Timestamp) -> io::Result<()> {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let plan = self.plan(path, names.collect::<io::Result<Vec<_>>>()?, now);
        for name in plan.remove {
            fs::remove_file(directory.join(name))?;
        }
        plan.compress.iter().try_for_each(|name| compress(&directory.join(name)))
    }

    fn plan(&self, path: &Path, names: Vec<String>, now: Timestamp) -> RetentionPlan {
        let (prefix, extension) = name_parts(path);
        let time_of = |name: &str| -> Option<String> {
            let time = name.strip_prefix(&prefix)?;
            let time = time.strip_suffix(PACKED).unwrap_or(time).strip_suffix(&extension)?;
            DateTime::strptime(BACKUP_TIME, time).ok().map(|_| time.to_owned())
        };
        // A service that ended while it compressed left a part; the whole is still there.
        let is_part = |name: &String| name.strip_suffix(UNFINISHED).is_some_and(|whole| time_of(whole).is_some());
        let (parts, names): (Vec<String>, Vec<String>) = names.into_iter().partition(is_part);
        let mut backups: Vec<(String, String)> =
            names.into_iter().filter_map(|name| Some((time_of(&name)?, name))).collect();
        backups.sort();
        // The newest first: their order is that of their times.
        backups.reverse();
        let age = SignedDuration::from_hours(24_i64.saturating_mul(self.max_age_days.into()));
        let oldest = now.checked_sub(age).map(backup_time).unwrap_or_default();
        let mut times: Vec<&str> = Vec::new();
        let mut plan = RetentionPlan { remove: parts, compress: Vec::new() };
        for (time, name) in &backups {
            if times.last() != Some(&time.as_str()) {
                times.push(time);
            }
            let is_too_many = self.max_backups > 0 && times.len() > self.max_backups;
            let is_too_old = self.max_age_days > 0 && *time < oldest;
            if is_too_many || is_too_old {
                plan.remove.push(name.clone());
            } else if self.compress && !name.ends_with(PACKED) {
                plan.compress.push(name.clone());
            }
        }
        plan
    }
}

const PACKED: &str = ".gz";
const UNFINISHED: &str = ".unfinished";
const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

fn backup_time(at: Timestamp) -> String {
    at.strftime(BACKUP_TIME).to_string()
}

/// What the names of older files begin and end with.
fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (format!("{}-", text(path.file_stem()).unwrap_or_default()), extension)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The file is there whole, packed or not, whenever this is interrupted.
fn compress(path: &Path) -> io::Result<()> {
    let mut packed = path.as_os_str().to_owned();
    packed.push(PACKED);
    let mut unfinished = packed.clone();
    unfinished.push(UNFINISHED);
    let out = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&unfinished)?;
    let mut encoder = GzEncoder::new(out, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&unfinished, &packed)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_323_045 + second).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_before_it_becomes_too_large_and_no_line_is_split() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("audit.log");
        let mut file = RotatingFile::open(&path, 10).unwrap();
        let replaced: Vec<bool> =
            [b"12345\n", b"12345\n", b"12345\n"].iter().map(|line| file.append(&line[..], at(0)).unwrap()).collect();
        assert_eq!(replaced, [false, true, true]);
        let expected = ["audit-2026-01-02T03-04-05.000.log", "audit-2026-01-02T03-04-05.001.log", "audit.log"];
        assert_eq!(names(path.parent().unwrap()), expected);
        assert!(file.append(b"longer than a file may be\n", at(1)).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "longer than a file may be\n");
        let mut again = RotatingFile::open(&path, 30).unwrap();
        assert!(again.append(b"12345\n", at(2)).unwrap(), "what was there counts");
    }

    #[test]
    fn a_file_that_somebody_else_emptied_has_the_size_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = RotatingFile::open(&path, 10).unwrap();
        assert!(!file.append(b"12345678\n", at(0)).unwrap());
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(!file.append(b"12345678\n", at(0)).unwrap(), "there is room in it");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path()).len()), ("12345678\n", 1));
        File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
        assert!(file.take_back(9), "there is nothing to be taken back");
        assert_eq!(fs::read(&path).unwrap(), b"12", "nothing is filled up with zeros");
    }

    #[test]
    fn parts_of_compressed_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let backup = "audit-2026-01-02T03-04-05.000.log";
        let part = format!("{backup}.gz.unfinished");
        for name in [backup, &part, "other.gz.unfinished"] {
            fs::write(dir.path().join(name), "text").unwrap();
        }
        BackupRetention::default().apply(&path, at(0)).unwrap();
        assert_eq!(names(dir.path()), [backup, "other.gz.unfinished"]);
    }

    #[test]
    fn older_files_go_by_age_and_by_number() {
        let path = Path::new("/var/log/audit.log");
        let name = |day: u32| format!("audit-2026-01-{day:02}T00-00-00.000.log");
        let all = || {
            let mut all = vec![name(1), format!("{}.gz", name(2)), name(3), name(4)];
            all.extend(["audit.log", "audit-x.log", "other-2026-01-01T00-00-00.000.log"].map(str::to_owned));
            all
        };
        let now = "2026-01-04T12:00:00Z".parse().unwrap();
        let plan = |max_age_days, max_backups, compress| {
            BackupRetention { max_age_days, max_backups, compress }.plan(path, all(), now)
        };
        assert_eq!(plan(0, 0, false), RetentionPlan::default());
        assert_eq!(plan(0, 3, false).remove, [name(1)]);
        assert_eq!(plan(2, 0, false).remove, [format!("{}.gz", name(2)), name(1)]);
        let both = plan(2, 0, true);
        assert_eq!(both.compress, [name(4), name(3)]);
    }

    #[test]
    fn what_is_compressed_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = RotatingFile::open(&path, 4).unwrap();
        file.append(b"one\n", at(0)).unwrap();
        file.append(b"two\n", at(0)).unwrap();
        BackupRetention { compress: true, ..BackupRetention::default() }.apply(&path, at(0)).unwrap();
        let backup = "audit-2026-01-02T03-04-05.000.log.gz";
        assert_eq!(names(dir.path()), [backup, "audit.log"]);
        let mut text = String::new();
        let packed = File::open(dir.path().join(backup)).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
    }
}
