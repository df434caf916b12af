//! What becomes of older files of a log: which go, and which are compressed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, Timestamp, civil::DateTime};

use super::rotation::{BACKUP_TIME, PACKED, backup_time, name_parts};

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

impl BackupRetention {
    /// Removes and compresses what is due of the older files of `path`. One with which something is wrong leaves the
    /// others alone.
    ///
    /// # Errors
    /// What the kernel says of the first such file.
    pub fn apply(&self, path: &Path, now: Timestamp) -> io::Result<()> {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let plan = self.plan(path, names.collect::<io::Result<Vec<_>>>()?, now);
        let removed = plan.remove.iter().map(|name| remove(&directory.join(name)));
        let compressed = plan.compress.iter().map(|name| compress(&directory.join(name)));
        removed.chain(compressed).fold(Ok(()), Result::and)
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

/// What the name of a compressed file ends with that is not whole.
const UNFINISHED: &str = ".unfinished";

/// Removes a file that may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The file is there whole, packed or not, whenever this is interrupted. What there is of a packed one where that fails
/// is removed: the disk may be full.
fn compress(path: &Path) -> io::Result<()> {
    let mut packed = path.as_os_str().to_owned();
    packed.push(PACKED);
    let mut unfinished = packed.clone();
    unfinished.push(UNFINISHED);
    let unfinished = Path::new(&unfinished);
    match pack(path, unfinished).and_then(|()| fs::rename(unfinished, &packed)) {
        Ok(()) => remove(path),
        Err(error) => {
            remove(unfinished)?;
            // Somebody else removed it meanwhile.
            if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
        }
    }
}

fn pack(path: &Path, packed: &Path) -> io::Result<()> {
    let mut text = File::open(path)?;
    let out = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(packed)?;
    let mut encoder = GzEncoder::new(out, Compression::default());
    io::copy(&mut text, &mut encoder)?;
    encoder.finish()?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::audit::rotation::{
        RotatingFile,
        tests::{append, at, names},
    };

    #[test]
    fn a_bad_file_does_not_keep_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let name = |day: u32| format!("audit-2026-01-{day:02}T00-00-00.000.log");
        for day in [1, 3, 5] {
            fs::write(dir.path().join(name(day)), "text").unwrap();
        }
        // Neither removed nor read as files are.
        fs::create_dir(dir.path().join(name(2))).unwrap();
        fs::create_dir(dir.path().join(name(4))).unwrap();
        let retention = BackupRetention { max_backups: 3, compress: true, ..BackupRetention::default() };
        retention.apply(&path, at(0)).expect_err("two cannot be treated");
        let packed = |day| format!("{}.gz", name(day));
        assert_eq!(names(dir.path()), [name(2), packed(3), name(4), packed(5)]);
        fs::remove_dir(dir.path().join(name(4))).unwrap();
        compress(&dir.path().join(name(4))).expect("somebody else removed it");
        assert_eq!(names(dir.path()), [name(2), packed(3), packed(5)]);
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
        append(&mut file, b"one\n", at(0));
        append(&mut file, b"two\n", at(0));
        BackupRetention { compress: true, ..BackupRetention::default() }.apply(&path, at(0)).unwrap();
        let backup = "audit-2026-01-02T03-04-05.000.log.gz";
        assert_eq!(names(dir.path()), [backup, "audit.log"]);
        let mut text = String::new();
        let packed = File::open(dir.path().join(backup)).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
    }
}
