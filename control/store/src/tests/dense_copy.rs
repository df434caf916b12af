//! A file that is much larger than what it holds becomes smaller with a stop, however often that is cut short.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use redb::Database;

use super::{
    logged_disks::{LoggedDisks, Unsynced, crashed},
    packed_rows::{Program, rows},
    small_disk::{SmallDisk, fill_to_the_brim},
    upgrade::{events_after, texts, to_layout_2, with_changes},
    *,
};
use crate::{
    Store,
    embedded::{
        dense_copy::{self, CopyError},
        disk,
        file::Limits,
    },
};

/// A store whose next stop makes its file smaller: one of layout 2.
async fn sparse(path: &Path) -> Vec<(String, u64, String)> {
    let store = Program::new(1).open(path);
    with_changes(&store, 24).await;
    let texts = texts(&store);
    drop(store);
    to_layout_2(&Database::open(path).unwrap(), &texts);
    texts
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[tokio::test]
async fn a_copy_that_was_cut_short_anywhere_is_made_to_its_end_by_the_next_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let texts_before = sparse(&path).await;
    let disks = LoggedDisks::default();
    dense_copy::update(&Database::open(&path).unwrap(), &disks.database()).unwrap();
    let operations = disks.operations();
    assert!(operations.len() > 8, "{} operations", operations.len());
    let again = dir.path().join("again");
    for at in 0..=operations.len() {
        let unsynced =
            [Unsynced::Lost, Unsynced::Some(0x9e37_79b9_7f4a_7c15_u64.rotate_left(at as u32)), Unsynced::Torn];
        let unsynced = unsynced[at % 3];
        let what = format!("cut short after {at} of {} operations, {unsynced:?}", operations.len());
        let [part, ..] = crashed(&Default::default(), &operations, at, unsynced);
        fs::copy(&path, &again).unwrap();
        fs::write(dense_copy::path_of(&again), part).unwrap();
        let original = inode(&again);
        let store = program.open(&again);
        assert_eq!(texts(&store), texts_before, "{what}");
        drop(store);
        assert!(!dense_copy::path_of(&again).exists() && inode(&again) != original, "{what}");
        assert_eq!(texts(&program.open(&again)), texts_before, "{what}");
    }
}

#[tokio::test]
async fn a_part_of_a_copy_of_an_earlier_state_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    let since = with_changes(&store, 24).await;
    drop(store);
    fs::copy(&path, dense_copy::path_of(&path)).unwrap();
    let original = inode(&path);
    let store = program.open(&path);
    for (name, text) in [("0001", "short"), ("more", "new")] {
        let expect = if name == "more" { Expect::Absent } else { Expect::Present };
        store.write_one(put(name, expect, text)).await.unwrap();
    }
    for name in ["0000", "0023", "0020"] {
        let revision = store.snapshot().get("things", name).unwrap().revision;
        store.write_one(delete(name, revision)).await.unwrap();
    }
    let (before, events) = (texts(&store), events_after(&store, since));
    drop(store);
    assert!(inode(&path) != original, "the copy took the place of the file");
    assert_eq!(rows(&path).len(), before.len());
    let store = program.open(&path);
    assert_eq!((texts(&store), events_after(&store, since)), (before, events));
}

#[tokio::test]
async fn a_symbolic_link_stays_and_the_file_that_it_names_becomes_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let (link, other) = (dir.path().join("store"), dir.path().join("other disk"));
    fs::create_dir(&other).unwrap();
    let path = other.join("objects");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    // Nothing is made where a link leads to nothing: its disk may not be mounted.
    assert!(Embedded::open(&link, Program::new(1)).is_err() && !path.exists());
    let texts_before = sparse(&path).await;
    let original = inode(&path);
    drop(Program::new(1).open(&link));
    assert_eq!(fs::read_link(&link).unwrap(), path);
    assert!(inode(&path) != original);
    let files = |dir: &Path| -> Vec<PathBuf> { fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect() };
    assert!(files(&other).iter().all(|file| !file.ends_with("objects.copy")));
    assert_eq!(texts(&Program::new(1).open(&link)), texts_before);
}

#[tokio::test]
async fn a_part_of_a_copy_is_removed_before_a_full_disk_refuses_anything() {
    // The tables, and the log where it makes itself longer: a record goes where there is space already.
    for (disk, writes) in [(0, 0), (0, 3), (1, 0), (1, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        fs::write(dense_copy::path_of(&path), "a part").unwrap();
        let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 20_000, full: 200_000 }).with_copy_of(&path);
        let store = disks.open();
        assert!(dense_copy::path_of(&path).exists());
        disks.fill_once_after(disk, writes);
        let mut name = 0;
        while disks.is_to_be_filled(disk) || dense_copy::path_of(&path).exists() {
            let put = put(&format!("{name:04}"), Expect::Absent, &unlike_others(name, 5_000));
            let written = store.write_one(put).await;
            assert!(written.is_ok(), "disk {disk} full after {writes} writes: {:?}", written.err());
            name += 1;
            assert!(name < 1_000, "disk {disk} full after {writes} writes: the copy stays");
        }
    }
}

#[tokio::test]
async fn a_part_of_a_copy_goes_where_a_table_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let texts_before = sparse(&path).await;
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("of a newer program")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    fs::write(dense_copy::path_of(&path), "a part").unwrap();
    let original = inode(&path);
    let replaced = dense_copy::replace(Database::open(&path).unwrap(), &path);
    assert!(matches!(replaced, Err(CopyError::UnknownTable)), "{replaced:?}");
    drop(Program::new(1).open(&path));
    assert!(!dense_copy::path_of(&path).exists(), "it would take space for ever");
    assert_eq!(inode(&path), original, "a copy would lack the table");
    assert_eq!(texts(&Program::new(1).open(&path)), texts_before);
}

#[tokio::test]
async fn a_copy_for_which_there_is_no_space_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Program::new(1).open(&path);
    with_changes(&store, 24).await;
    drop(store);
    let (database, length) = (Database::open(&path).unwrap(), fs::metadata(&path).unwrap().len());
    let Err(CopyError::NoRoom { needed, free: 0 }) = dense_copy::check_room(&database, &path, 0) else {
        panic!("there is no space at all");
    };
    assert!(needed > 16 << 20 && needed <= length + (16 << 20), "{needed}");
    assert!(dense_copy::check_room(&database, &path, needed - 1).is_err());
    assert!(dense_copy::check_room(&database, &path, needed).is_ok());
    assert!(dense_copy::check_room(&database, &path, u64::MAX).is_ok());
    assert!(disk::free_bytes(&path).unwrap() > 0);
    // What a copy takes in the end is not more.
    dense_copy::replace(database, &path).unwrap();
    assert!(fs::metadata(&path).unwrap().len() <= needed);
}

#[tokio::test]
async fn a_full_disk_keeps_the_file_as_it_is_until_there_is_space() {
    let disk = match SmallDisk::mount(16) {
        Ok(disk) => disk,
        Err(why) => {
            return crate::skipped::skipped(format_args!("a small file system cannot be mounted: {why}"));
        }
    };
    let (path, ballast) = (disk.path().join("store"), disk.path().join("ballast"));
    let texts_before = sparse(&path).await;
    let original = inode(&path);
    let store = Program::new(1).open(&path);
    fill_to_the_brim(&ballast);
    drop(store);
    assert_eq!(inode(&path), original);
    assert!(!dense_copy::path_of(&path).exists(), "what there was of the copy takes no space");
    assert_eq!(texts(&Program::new(1).open(&path)), texts_before);
    fs::remove_file(&ballast).unwrap();
    assert_eq!(texts(&Program::new(1).open(&path)), texts_before);
}
