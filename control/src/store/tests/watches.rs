//! Watches see every change once and in order, from the revision they name.

use std::time::{Duration, Instant};

use super::*;
use crate::store::{EventType, Expect, Store};

#[tokio::test]
async fn a_watch_sees_the_changes_after_its_revision_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    let mut watch = store.watch("things", first.revision).unwrap();
    let second = store.write_one(put("a", Expect::At(first.revision), "2")).await.unwrap();
    let third = store.write_one(delete("a", second.revision)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(watch.next().await.unwrap());
    }
    let words: Vec<_> = seen.iter().map(|event| (event.event_type, event.object.revision)).collect();
    assert_eq!(words, [(EventType::Modified, second.revision), (EventType::Deleted, third.revision)]);
    assert_eq!(seen[0].previous.as_ref().unwrap().revision, first.revision);
    assert_eq!(value(seen[1].object.json()), "2", "a deletion shows the last state");
    assert!(watch.ready().unwrap().is_empty());
}

#[tokio::test]
async fn a_revision_that_was_forgotten_is_expired() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    let second = store.write_one(put("b", Expect::Absent, "1")).await.unwrap();
    assert!(store.watch("things", first.revision).is_ok());
    store.compact(second.revision);
    assert!(store.watch("things", first.revision).is_err());
    assert!(store.watch("things", second.revision).is_ok());
}

#[tokio::test]
async fn a_kept_snapshot_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    let snapshot = store.snapshot();
    store.keep(&snapshot, "user");
    store.write_one(put("b", Expect::Absent, "1")).await.unwrap();
    let then = store.snapshot_at(snapshot.revision).unwrap();
    assert_eq!((then.count("things"), store.snapshot().count("things")), (1, 2));
    assert!(store.snapshot_at(snapshot.revision + 7).is_err());
}

#[tokio::test]
async fn the_writes_of_one_call_are_made_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let results = store
        .write(vec![put("a", Expect::Absent, "1"), put("a", Expect::Absent, "2"), put("b", Expect::Absent, "3")])
        .await;
    let made: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(made, [true, false, true]);
    assert_eq!(store.snapshot().revision, 2);
}

#[tokio::test]
async fn a_resource_that_nothing_changes_any_more_forgets_its_history_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    let second = store.write_one(put("b", Expect::Absent, "1")).await.unwrap();
    let mut reader = store.watch("things", second.revision).unwrap();
    store.keep(&store.snapshot(), "user");
    assert_eq!(store.trim(Instant::now()), 0);
    assert!(store.watch("things", first.revision).is_ok());

    assert_eq!(store.trim(Instant::now() + Duration::from_secs(301)), first.size() + second.size());
    assert!(store.watch("things", first.revision).is_err());
    store.write_one(put("c", Expect::Absent, "1")).await.unwrap();
    assert_eq!(reader.next().await.unwrap().len(), 1, "who has seen all loses nothing");
}

/// A write of an object of another resource than [`key`]'s.
fn put_other(name: &str) -> Write {
    let key = Key { resource: "others".into(), name: name.into() };
    Write { key, expect: Expect::Absent, change: Change::Put(draft("1")) }
}

#[tokio::test]
async fn a_watch_that_saw_the_last_change_of_its_resource_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap().revision;
    let thing = store.write_one(delete("a", first)).await.unwrap().revision;
    let other = store.write_one(put_other("x")).await.unwrap().revision;
    drop(store);

    let store = open(&path);
    assert!(store.watch("things", first).is_err(), "it did not see the deletion");
    assert!(store.watch("others", thing).is_err(), "it did not see the creation");
    assert!(store.watch("others", other).is_ok() && store.watch("never-written", 0).is_ok());
    let mut all = store.watch("things", thing).unwrap();
    let mut marked = store.watch_by("things", ("node", "n"), thing).unwrap();
    let next = store.write_one(put("b", Expect::Absent, "@n")).await.unwrap().revision;
    for subscription in [&mut all, &mut marked] {
        let seen: Vec<u64> = subscription.next().await.unwrap().iter().map(|event| event.object.revision).collect();
        assert_eq!(seen, [next]);
    }
}

#[tokio::test]
async fn what_a_program_without_the_table_of_changes_wrote_is_listed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let seen = store.write_one(put("a", Expect::Absent, "1")).await.unwrap().revision;
    drop(store);
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<&str, &[u8]>::new("objects")).unwrap().remove("things/a").unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    transaction.open_table(meta).unwrap().insert("revision", seen + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let store = open(&path);
    assert!(store.watch("things", seen).is_err() && store.watch("others", seen).is_err());
    let other = store.write_one(put_other("x")).await.unwrap().revision;
    drop(store);
    let store = open(&path);
    assert!(store.watch("things", seen).is_err(), "a later write makes the table right for what follows alone");
    assert!(store.watch("things", seen + 1).is_ok() && store.watch("others", other).is_ok());
}
