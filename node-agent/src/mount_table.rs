//! The mounts of this process's namespace, as `/proc/self/mountinfo` lists them (proc_pid_mountinfo(5)).
//!
//! Not read by the crate `procfs`: it leaves mount points as the table writes them, a blank as `\040`.

use std::{ffi::OsString, fs, io, os::unix::ffi::OsStringExt, path::PathBuf};

/// Where the kernel shows the table.
pub const PATH: &str = "/proc/self/mountinfo";

/// A file system at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The directory that it is mounted on, as this process sees it.
    pub mount_point: PathBuf,
    /// `cgroup2`, `bpf`…
    pub fs_type: OsString,
}

/// All mounts, in the order of the table.
pub fn read() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read(PATH)?))
}

fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNT-POINT OPTIONS [FIELD…] - FS-TYPE SOURCE OPTIONS`
fn entry(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mount_point = fields.nth(4)?;
    let fs_type = fields.skip(1).skip_while(|field| *field != b"-").nth(1)?;
    Some(MountEntry { mount_point: unescaped(mount_point).into(), fs_type: unescaped(fs_type) })
}

/// The table writes blanks, line ends and backslashes as `\` and three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let escaped = after.first_chunk().filter(|_| *first == b'\\').and_then(octal);
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    digits.iter().try_fold(0_u8, |value, digit| value.checked_mul(8)?.checked_add(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::ffi::OsStrExt, path::Path};

    use super::*;

    #[test]
    fn a_mount_point_is_read_whatever_stands_in_it() {
        let table = b"22 1 0:21 / /sys rw,nosuid shared:7 master:1 - sysfs sysfs rw\n\
            31 22 0:27 / /data/a\\040b\\134040\\011\\012 rw - cgroup2 - rw\n\
            32 22 0:28 / /x\xff\\9\\400 rw - tmpfs  rw\n\
            33 22 0:29 / /cut rw\n";
        let entries = parse(table);
        let told: Vec<(&[u8], &str)> = entries
            .iter()
            .map(|entry| (entry.mount_point.as_os_str().as_bytes(), entry.fs_type.to_str().unwrap()))
            .collect();
        assert_eq!(
            told,
            [(&b"/sys"[..], "sysfs"), (&b"/data/a b\\040\t\n"[..], "cgroup2"), (&b"/x\xff\\9\\400"[..], "tmpfs"),]
        );
    }

    #[test]
    fn this_process_has_mounts() {
        let entries = read().unwrap();
        assert!(entries.iter().any(|entry| entry.mount_point == Path::new("/proc") && entry.fs_type == "proc"));
    }
}
