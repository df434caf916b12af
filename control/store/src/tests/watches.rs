//! Watches see every change once and in order, from the revision they name.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::{EventType, Expect, Object, Store, references::References};

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
    assert_eq!(value(&seen[1].object.json()), "2", "a deletion shows the last state");
    assert!(watch.ready().unwrap().is_empty());
}

#[tokio::test]
async fn a_reader_that_is_behind_takes_batches_of_bounded_size_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let large = format!("{} @n", "x".repeat(12 << 10));
    let mut last = 0;
    for n in 0..9 {
        last = store.write_one(put(&format!("k{n}"), Expect::Absent, &large)).await.unwrap().revision;
    }
    let huge = format!("{} @n", "x".repeat(100 << 10));
    let published = store.write_one(put("k9", Expect::Absent, &huge)).await.unwrap().revision;
    for mut reader in [store.watch("things", 0).unwrap(), store.watch_by("things", ("node", "n"), 0).unwrap()] {
        let (mut sizes, mut revisions) = (Vec::new(), Vec::new());
        while revisions.len() < 10 {
            let batch = reader.next().await.unwrap();
            sizes.push(batch.len());
            revisions.extend(batch.iter().map(|event| event.object.revision));
            let seen = *revisions.last().unwrap();
            assert_eq!((reader.is_behind(), reader.seen_up_to(published)), (seen < published, seen));
        }
        assert_eq!(sizes, [2, 2, 2, 2, 1, 1]);
        assert_eq!(revisions, (last - 8..=published).collect::<Vec<_>>());
        assert_eq!(reader.seen_up_to(published + 3), published + 3);
    }
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
    let then = store.snapshot_at("things", snapshot.revision).unwrap();
    assert_eq!((then.count("things"), store.snapshot().count("things")), (1, 2));
    assert!(store.snapshot_at("things", snapshot.revision + 7).is_err());
    store.compact(snapshot.revision + 1);
    assert!(store.snapshot_at("things", snapshot.revision).is_ok(), "it does not need the history");
}

#[tokio::test]
async fn a_state_is_too_old_after_a_while_even_if_it_could_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap().revision;
    store.write_one(put("b", Expect::Absent, "1")).await.unwrap();
    let now = Instant::now();
    store.trim(now);
    assert!(store.snapshot_at("things", first).is_ok());
    store.trim(now + Duration::from_secs(301));
    assert!(store.snapshot_at("things", first).is_err());
    assert!(store.snapshot_at("things", store.published()).is_ok(), "the latest state never is");
}

#[tokio::test]
async fn any_state_of_a_resource_that_the_history_reaches_can_be_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let first = store.write_one(put("a", Expect::Absent, "1 @n")).await.unwrap().revision;
    let second = store.write_one(put("b", Expect::Absent, "1 @n")).await.unwrap().revision;
    let third = store.write_one(put("a", Expect::At(first), "2")).await.unwrap().revision;
    let fourth = store.write_one(delete("b", second)).await.unwrap().revision;
    let at = |revision: u64| {
        let state = store.snapshot_at("things", revision).unwrap();
        assert_eq!(state.revision, revision);
        let all: Vec<String> =
            state.list("things", "", None).map(|(key, o)| format!("{key}={}", value(&o.json()))).collect();
        let marked: Vec<String> =
            state.list_by("things", ("node", "n"), "", None).map(|(key, _)| key.to_string()).collect();
        (all.join(","), marked.join(","))
    };
    let pair = |all: &str, marked: &str| (all.to_owned(), marked.to_owned());
    assert_eq!(at(first), pair("a=1 @n", "a"));
    assert_eq!(at(second), pair("a=1 @n,b=1 @n", "a,b"));
    assert_eq!(at(third), pair("a=2,b=1 @n", "b"));
    assert_eq!(at(fourth), pair("a=2", ""));
    store.keep(&store.snapshot_at("things", first).unwrap(), "user");
    store.compact(second);
    assert!(
        store.snapshot_at("things", first).is_err(),
        "what was made from history is not kept: it is of one resource"
    );
    assert!(store.snapshot_at("things", second).is_ok());
}

#[tokio::test]
async fn a_reader_waits_for_a_revision_and_no_longer_than_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(&dir.path().join("store")));
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait_for(1, Duration::from_secs(60)).await }
    });
    store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 1);
    assert_eq!(store.wait_for(2, Duration::from_millis(1)).await, 1);
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
async fn a_watch_that_was_behind_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let first = store.write_one(put("a", Expect::Absent, "1 @n")).await.unwrap().revision;
    let other = store.write_one(put_other("x")).await.unwrap().revision;
    let changed = store.write_one(put("a", Expect::At(first), "other @m")).await.unwrap().revision;
    let kept = store.write_one(put("b", Expect::Absent, "3")).await.unwrap().revision;
    let gone = store.write_one(delete("a", changed)).await.unwrap().revision;
    let again = store.write_one(put("a", Expect::Absent, "4")).await.unwrap().revision;
    let seen = |store: &Embedded, after: u64| -> Vec<_> {
        let events = store.watch("things", after).unwrap().ready().unwrap();
        let before = |event: &crate::Event| event.previous.as_ref().map(|o| (o.revision, value(&o.json())));
        let told = |event: &std::sync::Arc<crate::Event>| {
            let object = &event.object;
            assert!(object.frame().starts_with(event.event_type.frame_start()));
            (event.event_type, event.key.name.to_string(), object.revision, value(&object.json()), before(event))
        };
        events.iter().map(told).collect()
    };
    let expected = seen(&store, 0);
    let revisions: Vec<u64> = expected.iter().map(|event| event.2).collect();
    assert_eq!(revisions, [first, changed, kept, gone, again]);
    drop(store);
    for _ in 0..2 {
        let store = open(&path);
        assert_eq!(seen(&store, 0), expected);
        assert_eq!(seen(&store, changed), expected[2..]);
        let marked = store.watch_by("things", ("node", "n"), 0).unwrap().ready().unwrap();
        let marked: Vec<u64> = marked.iter().map(|event| event.object.revision).collect();
        assert_eq!(marked, [first, changed], "what leaves the selection is told, too");
        assert_eq!(store.snapshot_at("things", changed).unwrap().count("things"), 1);
        assert!(store.watch("others", other).is_ok() && store.watch("never-written", 0).is_ok());
        drop(store);
    }
    let store = open(&path);
    let last = store.write_one(delete("b", kept)).await.unwrap().revision;
    drop(store);
    let store = open(&path);
    assert_eq!(seen(&store, again).iter().map(|event| event.2).collect::<Vec<_>>(), [last]);
    assert_eq!(seen(&store, 0)[..expected.len()], expected, "later writes add to what an earlier run wrote");
}

#[tokio::test]
async fn the_history_of_a_restart_is_let_go_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap().revision;
    let second = store.write_one(put("b", Expect::Absent, "1")).await.unwrap().revision;
    drop(store);
    let store = open(&path);
    store.trim(Instant::now() + Duration::from_secs(301));
    assert!(store.watch("things", first).is_err() && store.watch("things", second).is_ok());
}

#[tokio::test]
async fn many_changes_do_not_grow_the_file_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    for round in 0..10u64 {
        let writes = (0..4096).map(|n| {
            let expect = if round == 0 { Expect::Absent } else { Expect::At((round - 1) * 4096 + n + 1) };
            put(&format!("k{n}"), expect, &round.to_string())
        });
        assert!(store.write(writes.collect()).await.iter().all(Result::is_ok));
    }
    drop(store);
    let store = open(&path);
    let last = store.snapshot().revision;
    assert_eq!(last, 40_960);
    assert!(store.watch("things", 1).is_err(), "the oldest were dropped");
    let events = store.watch("things", last - 8192).unwrap();
    drop(events);
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
    assert!(store.watch("things", seen).is_err(), "a later write makes the tables right for what follows alone");
    assert!(store.watch("things", seen + 1).is_ok() && store.watch("others", other).is_ok());
}

#[test]
fn a_frame_that_many_take_is_made_once_and_says_the_same() {
    let (mut references, resource) = (References::default(), Arc::from("things"));
    let value = "a text that is long enough to be encoded ".repeat(10);
    for value in [value.as_str(), "short"] {
        let object = Object::kept(draft(value), 7, EventType::Added, (&resource, &mut references));
        let (mut alone, mut first, mut second) = (Vec::new(), Vec::new(), b"before".to_vec());
        object.write_frame(&mut alone);
        object.write_shared_frame(&mut first);
        object.write_shared_frame(&mut second);
        assert_eq!((&first, &second[6..]), (&alone, &alone[..]));
        let frame = object.frame();
        assert_eq!((&*frame, frame.as_ptr()), (&*alone, object.frame().as_ptr()));
    }
}
