//! How many bytes of disk a volume takes, as `du` counts them: blocks of each file once, on one file system.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::beneath::{open_root, open_without_links, path_of};

/// Bytes in use in `directory`, which containers may write to meanwhile. Reads each directory in it: call it on a
/// blocking thread. What goes while it is counted is passed over; no link is followed.
pub fn used_bytes(directory: &Path) -> io::Result<u64> {
    const BLOCK: u64 = 512;
    let root = open_root(directory)?;
    let top = fs::metadata(path_of(&root))?;
    let mut blocks = top.blocks();
    // Files with several names, by their number.
    let mut counted = HashSet::new();
    let mut directories = vec![PathBuf::from(".")];
    while let Some(path) = directories.pop() {
        let opened = match open_without_links(&root, &path, OFlag::O_DIRECTORY) {
            Ok(opened) => opened,
            Err(error) if went(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in fs::read_dir(path_of(&opened))? {
            let entry = entry?;
            let found = match entry.metadata() {
                Ok(found) => found,
                Err(error) if went(&error) => continue,
                Err(error) => return Err(error),
            };
            if found.dev() != top.dev() || (found.nlink() > 1 && !found.is_dir() && !counted.insert(found.ino())) {
                continue;
            }
            blocks = blocks.saturating_add(found.blocks());
            if found.is_dir() {
                directories.push(path.join(entry.file_name()));
            }
        }
    }
    Ok(blocks.saturating_mul(BLOCK))
}

/// It was removed, or something else took its place.
fn went(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::ENOENT, libc::ELOOP, libc::ENOTDIR, libc::ESTALE].into_iter().any(|one| number == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_what_links_lead_to_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let (volume, elsewhere) = (directory.path().join("volume"), directory.path().join("elsewhere"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("large"), vec![1; 4 << 20]).unwrap();
        let empty = used_bytes(&volume).unwrap();
        fs::write(volume.join("a/b/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(volume.join("a/b/file"), volume.join("again")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, volume.join("link")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("large"), volume.join("a/link")).unwrap();
        // A file of holes takes no blocks.
        fs::File::create(volume.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let used = used_bytes(&volume).unwrap() - empty;
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
        assert!(used_bytes(&directory.path().join("none")).is_err());
    }
}
