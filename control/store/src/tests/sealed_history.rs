//! The stored history of resources that are sealed: what must not be read is not, what cannot be sealed concerns its
//! resource alone, and texts of before leave the file.

use std::{os::unix::fs::MetadataExt, sync::atomic::Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    toy_seal::{MARKER, Toy, contains},
    upgrade::events_after,
    *,
};
use crate::{DamagedBases, Store};

const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");

/// Whether the rows of the history have the marker.
fn history_has_marker(path: &Path) -> bool {
    let transaction = Database::open(path).unwrap().begin_read().unwrap();
    let history = transaction.open_table(HISTORY).unwrap();
    history.iter().unwrap().any(|row| contains(row.unwrap().1.value()))
}

/// The first value that `x` of another resource has is 1.
fn other(value: &str) -> Write {
    let key = Key { resource: "others".into(), name: "x".into() };
    let expect = if value == "1" { Expect::Absent } else { Expect::Present };
    Write { key, expect, change: Change::Put(draft(value)) }
}

/// How many changes of `others` a watch tells that saw none of them.
fn others_since(store: &Embedded, revision: u64) -> usize {
    store.watch("others", revision).unwrap().ready().unwrap().len()
}

/// Has the marker in the history alone, and a change of another resource on both sides of it. Answers with the revision
/// before all changes of others.
async fn with_plain_history(path: &Path) -> u64 {
    let store = open(path);
    let first = store.write_one(put("a", Expect::Absent, &format!("1 {MARKER} 1"))).await.unwrap().revision;
    store.write_one(other("1")).await.unwrap();
    store.write_one(put("a", Expect::Present, "2")).await.unwrap();
    store.write_one(other("2")).await.unwrap();
    drop(store);
    assert!(history_has_marker(path));
    first
}

#[tokio::test]
async fn texts_of_before_the_encryption_are_not_read_and_leave_the_file_with_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let first = with_plain_history(&path).await;
    let store = Toy::new(1, &[1]).open(&path).unwrap();
    assert!(store.watch("things", first).is_err(), "what was before is not known");
    assert!(store.stats().freed_texts, "free places of the file have the text until a stop");
    assert_eq!(others_since(&store, first), 2, "others go on");
    // As after a crash: the file as the start left it.
    let copy = dir.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    assert!(!history_has_marker(&copy));
    drop(store);
    assert!(!contains(&std::fs::read(&path).unwrap()), "nor has any free place of it the text after a stop");
    let store = Toy::new(1, &[1]).open(&path).unwrap();
    assert!(store.watch("things", first).is_err() && !store.stats().freed_texts);
    assert_eq!(others_since(&store, first), 2);
}

#[tokio::test]
async fn free_places_of_what_a_stop_left_of_a_copy_do_not_become_those_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    store.write_one(put("a", Expect::Absent, MARKER)).await.unwrap();
    drop(store);
    std::fs::copy(&path, dir.path().join("store.copy")).unwrap();
    let store = Toy::new(1, &[1]).open(&path).unwrap();
    store.write_one(put("a", Expect::Present, MARKER)).await.unwrap();
    drop(store);
    assert!(!contains(&std::fs::read(&path).unwrap()));
    assert!(!dir.path().join("store.copy").exists());
}

/// A kill leaves the same: the debt is known from the file alone.
#[tokio::test]
async fn texts_in_free_places_are_removed_by_a_later_stop_where_one_could_not() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1]));
    let store = open(&path);
    store.write_one(put("a", Expect::Absent, MARKER)).await.unwrap();
    drop(store);
    // No copy can be made.
    let copy = dir.path().join("store.copy");
    std::fs::create_dir(&copy).unwrap();
    let store = seal.open(&path).unwrap();
    store.write_one(put("a", Expect::Present, "sealed")).await.unwrap();
    drop(store);
    assert!(contains(&std::fs::read(&path).unwrap()), "a free place has it");
    std::fs::remove_dir(&copy).unwrap();
    drop(seal.open(&path).unwrap());
    assert!(!contains(&std::fs::read(&path).unwrap()));
    let copied = std::fs::metadata(&path).unwrap().ino();
    drop(seal.open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), copied, "nothing is left to be done");
}

#[tokio::test]
async fn a_text_of_before_the_encryption_leaves_the_file_when_its_object_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let written = store.write_one(put("a", Expect::Absent, MARKER)).await.unwrap().revision;
    drop(store);
    let store = Toy::new(1, &[1]).open(&path).unwrap();
    store.write_one(delete("a", written)).await.unwrap();
    drop(store);
    assert!(!contains(&std::fs::read(&path).unwrap()));
}

#[tokio::test]
async fn texts_leave_the_history_once_their_resource_is_encrypted_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (first, seal) = (with_plain_history(&path).await, Toy::new(0, &[1]));
    let store = seal.open(&path).unwrap();
    assert_eq!(events_after(&store, first).len(), 1, "it is not sealed yet");
    store.write_one(put("b", Expect::Absent, &format!("{MARKER} b"))).await.unwrap();
    store.write_one(put("b", Expect::Present, "b")).await.unwrap();
    seal.0.writer.store(1, Ordering::Relaxed);
    let sealed = store.write_one(put("a", Expect::Present, "3")).await.unwrap().revision;
    drop(store);
    assert!(!history_has_marker(&path));
    let store = seal.open(&path).unwrap();
    let events = events_after(&store, sealed - 1);
    assert_eq!(events.len(), 1, "what was sealed is known");
    assert_eq!(value(events[0].3.as_deref().unwrap()), "2");
    assert!(store.watch("things", first).is_err(), "what was not is gone");
}

#[tokio::test]
async fn what_cannot_be_sealed_leaves_the_history_of_others_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1]));
    let store = seal.open(&path).unwrap();
    let first = store.write_one(put("a", Expect::Absent, MARKER)).await.unwrap().revision;
    store.write_one(other("1")).await.unwrap();
    seal.0.fails.store(true, Ordering::Relaxed);
    let gone = store.write_one(delete("a", first)).await.unwrap().revision;
    store.write_one(other("2")).await.unwrap();
    drop(store);
    seal.0.fails.store(false, Ordering::Relaxed);
    let store = seal.open(&path).unwrap();
    assert_eq!(others_since(&store, first), 2);
    assert!(store.watch("things", first).is_err(), "the deletion's last text is not known");
    assert!(store.watch("things", gone).is_ok());
    assert!(!history_has_marker_of(&path, store));
}

fn history_has_marker_of(path: &Path, store: Embedded) -> bool {
    drop(store);
    history_has_marker(path)
}

#[tokio::test]
async fn history_under_a_key_that_is_gone_ends_there_for_its_resource_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1, 2]));
    let store = seal.open(&path).unwrap();
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap().revision;
    store.write_one(other("1")).await.unwrap();
    store.write_one(put("a", Expect::Present, "2")).await.unwrap();
    drop(store);
    let store = seal.open(&path).unwrap();
    assert_eq!(events_after(&store, first).len(), 1);
    seal.0.writer.store(2, Ordering::Relaxed);
    let sealed = store.write_one(put("a", Expect::Present, "3")).await.unwrap().revision;
    drop(store);
    let store = Toy::new(2, &[2]).open_damaged(&path, DamagedBases::Refuse).unwrap();
    assert!(store.watch("things", first).is_err());
    assert_eq!(events_after(&store, sealed - 1).len(), 1);
    assert_eq!(others_since(&store, first), 1);
}
