//! Changes all files of a volume at once, as Kubernetes does: the files are in a directory of their own, `..data` is a
//! link to it, and what the container opens are links through `..data`. Replacing that one link changes them all.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use super::{
    files::Contents,
    fs_group::{GroupAccess, set_group},
};
use crate::pods::mounted_file;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `directory` hold `contents` and nothing else, all of it the property of `group` where there is one. Does
/// nothing where it does already. A crash at any point leaves the old or the new files.
pub fn write(directory: &Path, contents: &Contents, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let data = directory.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && is_current(&data, contents, group) {
        return Ok(());
    }
    let version = format!("..{}_{:08x}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>());
    let fresh = directory.join(&version);
    if let Err(error) = fill(&fresh, contents, group) {
        // On a full disk, what is left over of each try would add up.
        drop(fs::remove_dir_all(&fresh));
        return Err(error);
    }
    let link = directory.join(NEW_DATA);
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(&version, &link)?;
    fs::rename(&link, &data)?;
    link_names(directory, contents)?;
    if let Some(old) = old {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(())
}

/// Makes a directory of the files.
fn fill(fresh: &Path, contents: &Contents, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(fresh)?;
    fs::set_permissions(fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in contents {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        if file.owner.is_some() {
            chown(&path, file.owner, None)?;
        }
    }
    group.map_or(Ok(()), |group| set_group(fresh, group, GroupAccess::Read))
}

/// Links the first part of each path through `..data`, and removes links to files that the volume has not any more.
fn link_names(directory: &Path, contents: &Contents) -> io::Result<()> {
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let names: std::collections::BTreeSet<_> = contents.keys().map(|path| first(path)).collect();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            fs::remove_file(directory.join(name))?;
        }
    }
    for name in names {
        let link = directory.join(&name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(&name), link)?;
        }
    }
    Ok(())
}

fn is_current(data: &Path, contents: &Contents, group: Option<u32>) -> bool {
    // The group may read what it owns.
    let of_group = if group.is_some() { GroupAccess::Read.bits() } else { 0 };
    let same = contents.iter().all(|(path, file)| {
        let path = data.join(path);
        let has_mode = |meta: &fs::Metadata| meta.permissions().mode() & 0o777 == file.mode | of_group;
        let is_owned = |meta: &fs::Metadata| file.owner.is_none_or(|owner| owner == meta.uid());
        // One that cannot be looked at, because a container has a lease on it, is written.
        mounted_file::holds(&path, &file.bytes).unwrap_or(false)
            && fs::metadata(&path).is_ok_and(|meta| has_mode(&meta) && is_owned(&meta))
    });
    same && count(data).is_ok_and(|count| count == contents.len())
}

fn count(directory: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::volumes::files::File;

    fn contents(pairs: &[(&str, &str)]) -> Contents {
        pairs
            .iter()
            .map(|(path, text)| {
                ((*path).to_owned(), File { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None })
            })
            .collect()
    }

    #[test]
    fn an_update_replaces_all_files_through_one_link() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("v");
        write(&volume, &contents(&[("a", "1"), ("deep/b", "2")]), None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("deep/b")).unwrap(), "2");
        assert_eq!(fs::read_link(volume.join("a")).unwrap(), Path::new("..data/a"));
        let first = fs::read_link(volume.join(DATA)).unwrap();

        write(&volume, &contents(&[("a", "1"), ("deep/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(volume.join(DATA)).unwrap(), first, "equal contents change nothing");

        write(&volume, &contents(&[("a", "3"), ("c", "4")]), None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert_eq!(fs::read_to_string(volume.join("c")).unwrap(), "4");
        assert!(volume.join("deep").symlink_metadata().is_err(), "a file that is removed is not linked");
        assert!(!volume.join(first).exists(), "the old version is removed");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn files_on_which_a_pod_holds_leases_are_replaced_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let held = |text: &str| {
            write(directory.path(), &contents(&[("a", text)]), None).unwrap();
            assert_eq!(fs::read_to_string(directory.path().join("a")).unwrap(), text);
            let held = fs::File::open(directory.path().join("a")).unwrap();
            mounted_file::lease(&held, libc::F_WRLCK);
            held
        };
        let started = std::time::Instant::now();
        let _held = [held("1"), held("1"), held("2")];
        assert!(started.elapsed().as_secs() < 20, "it waited for {:?}", started.elapsed());
    }

    #[test]
    fn files_that_are_given_to_a_group_are_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let group = Some(nix::unistd::getegid().as_raw());
        let files = contents(&[("a", "1")]);
        write(directory.path(), &files, group).unwrap();
        let first = fs::read_link(directory.path().join(DATA)).unwrap();
        assert_eq!(fs::metadata(directory.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        write(directory.path(), &files, group).unwrap();
        assert_eq!(fs::read_link(directory.path().join(DATA)).unwrap(), first);
    }
}
