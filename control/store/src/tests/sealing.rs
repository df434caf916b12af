//! Encryption at rest: no text of a sealed resource reaches the disk, a value opens in its place alone, a missing key
//! loses nothing, and keys are rotated by writing.

use std::sync::{Arc, atomic::Ordering};

use redb::{Database, ReadableDatabase};

use super::{
    logged_disks::{LoggedDisks, Operation, Unsynced, crashed},
    packed_rows::{Program, objects, rows},
    toy_seal::{MARKER, Toy, contains},
    *,
};
use crate::{
    CommitError, DamagedBases, Snapshot, Store, Transaction,
    embedded::{file::Limits, tables::META},
};

/// Whether any file of a directory has the marker, as it stands or in pieces that a difference leaves.
fn has_marker(dir: &Path) -> bool {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let found: Vec<bool> = files.map(|bytes| contains(&bytes)).collect();
    assert!(found.len() >= 3, "the tables and both files of the log");
    found.contains(&true)
}

/// Bytes that all objects take in memory.
fn held(store: &Embedded) -> usize {
    store.snapshot().list("things", "", None).map(|(_, object)| object.held_bytes()).sum()
}

fn secret(n: usize) -> String {
    format!("@n1 {n} {MARKER} {}", "with words that many others have, too ".repeat(8))
}

/// Objects like each other, of which some are changed and one is deleted: bases, differences and a history.
pub async fn work(store: &Embedded) {
    for n in 0..20 {
        store.write_one(put(&format!("k{n}"), Expect::Absent, &secret(n))).await.unwrap();
    }
    for n in 0..10 {
        store.write_one(put(&format!("k{n}"), Expect::Present, &secret(n + 100))).await.unwrap();
    }
    let revision = store.snapshot().get("things", "k19").unwrap().revision;
    store.write_one(delete("k19", revision)).await.unwrap();
}

#[tokio::test]
async fn no_text_of_a_sealed_resource_is_on_the_disk() {
    for is_sealed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let seal = Toy::new(if is_sealed { 1 } else { 0 }, &[1]);
        let store = seal.open(&path).unwrap();
        work(&store).await;
        let (written, held_before) = (objects(&store), held(&store));
        assert_eq!(has_marker(dir.path()), !is_sealed, "in the log");
        drop(store);
        assert_eq!(has_marker(dir.path()), !is_sealed, "in the tables");

        let program = Program::new(1);
        let open = Embedded::open_sealed(&path, program.clone(), DamagedBases::Refuse, Some(Arc::new(seal.clone())));
        let store = open.unwrap();
        assert_eq!(program.parsed(), 0, "the headers are kept");
        assert_eq!(objects(&store), written);
        // The history, too, is what it was.
        let latest = store.snapshot().revision;
        let events = store.watch("things", latest - 3).unwrap().ready().unwrap();
        let told = events.iter().map(|event| {
            let before = event.previous.as_ref().map(|previous| value(&previous.json()));
            (event.key.name.to_string(), before)
        });
        let expected = [("k8", 8), ("k9", 9), ("k19", 19)].map(|(name, n)| (name.to_owned(), Some(secret(n))));
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert!(held(&store) <= held_before, "objects are packed in memory as they were");
        drop((events, store));
        assert_eq!(has_marker(dir.path()), !is_sealed, "after a start");
    }
}

#[tokio::test]
async fn other_resources_are_stored_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Toy::new(1, &[1]).open(&path).unwrap();
    let other = Key { resource: "others".into(), name: "a".into() };
    store.write_one(Write { key: other, expect: Expect::Absent, change: Change::Put(draft("plain")) }).await.unwrap();
    store.write_one(put("a", Expect::Absent, "sealed")).await.unwrap();
    drop(store);
    let markers: Vec<(String, u8)> = rows(&path).into_iter().map(|(key, row)| (key, row[8])).collect();
    assert_eq!(markers, [("others/a".to_owned(), 0xf5), ("things/a".to_owned(), 0xf6)]);
}

#[tokio::test]
async fn a_program_that_knows_no_sealed_values_refuses_the_file() {
    let layout = |path: &Path| {
        let transaction = Database::open(path).unwrap().begin_read().unwrap();
        transaction.open_table(META).unwrap().get("layout").unwrap().unwrap().value()
    };
    for (writer, expected) in [(0, 3), (1, 4)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Toy::new(writer, &[1]).open(&path).unwrap();
        store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
        drop(store);
        assert_eq!(layout(&path), expected);
    }
}

#[tokio::test]
async fn keys_are_rotated_by_writing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    drop(store);
    let seal = Toy::new(1, &[1]);
    let store = seal.open(&path).unwrap();
    let get = |store: &Embedded| store.snapshot().get("things", "a").cloned().unwrap();
    let is_stale = |store: &Embedded| store.is_stale("things", &get(store));
    assert!(is_stale(&store), "it was stored without encryption");
    store.write_one(put("a", Expect::Present, "1")).await.unwrap();
    assert!(!is_stale(&store));
    // Another key, while the store is open.
    seal.0.writer.store(2, Ordering::Relaxed);
    seal.0.readers.lock().unwrap().push(2);
    assert!(is_stale(&store));
    store.write_one(put("a", Expect::Present, "1")).await.unwrap();
    assert!(!is_stale(&store));
    drop(store);
    let store = Toy::new(2, &[2]).open(&path).expect("nothing needs the old key");
    assert!(!is_stale(&store), "a start knows it, too");
    // A text that was made anew is stored as it was.
    store.reread("things", Box::new(|object| Some(object.draft()))).await;
    assert!(!is_stale(&store));
    assert!(store.watch("things", get(&store).revision).is_ok());
    drop(store);
    let store = Toy::new(0, &[2]).open(&path).unwrap();
    assert!(is_stale(&store), "it is to be stored without encryption");
}

#[tokio::test]
async fn a_value_that_cannot_be_sealed_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1]));
    let store = seal.open(&path).unwrap();
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    seal.0.fails.store(true, Ordering::Relaxed);
    let other = |name: &str| Write {
        key: Key { resource: "others".into(), name: name.into() },
        expect: Expect::Absent,
        change: Change::Put(draft("plain")),
    };
    let writes = vec![other("x"), put("a", Expect::Present, "2")];
    let both = Transaction { require: Vec::new(), writes };
    let results = store.commit_all(vec![both, other("y").into(), delete("a", first.revision).into()]).await;
    let told = results[0].as_ref().unwrap_err().to_string();
    assert!(matches!(&results[0], Err(CommitError::Unavailable { .. })), "{told}");
    assert!(told.contains("cannot encrypt an object of things: the key service is away"), "{told}");
    assert!(results[1].is_ok() && results[2].is_ok(), "what needs no key is made");
    let counts = |snapshot: &Snapshot| (snapshot.count("things"), snapshot.count("others"));
    assert_eq!(counts(&store.snapshot()), (0, 1));
    assert!(store.stats().check().is_ok());
    let revision = store.snapshot().revision;
    drop(store);
    seal.0.fails.store(false, Ordering::Relaxed);
    let store = seal.open(&path).unwrap();
    assert_eq!((counts(&store.snapshot()), store.snapshot().revision), ((0, 1), revision));
    assert!(!has_marker(dir.path()));
}

/// What the files say of `things` after a crash at each step is what was answered, and has no text at any time.
#[tokio::test]
async fn a_loss_of_power_loses_nothing_and_shows_nothing() {
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 8192, ..Limits::default() });
    let empty = disks.contents();
    let seal = Toy::new(1, &[1]);
    let mut answered = Vec::new();
    let store = disks.open_sealed(Arc::new(seal.clone()));
    for n in 0..10 {
        store.write_one(put(&format!("k{}", n % 4), expect(&store, n), &secret(n))).await.unwrap();
        answered.push((disks.now(), objects(&store)));
    }
    drop(store);
    let operations = disks.operations();
    let shows =
        |(_, operation): &(usize, Operation)| matches!(operation, Operation::Write { bytes, .. } if contains(bytes));
    assert!(!operations.iter().any(shows));
    for at in (0..=operations.len()).step_by(3) {
        for unsynced in [Unsynced::Lost, Unsynced::Torn] {
            let content = crashed(&empty, &operations, at, unsynced);
            let store = LoggedDisks::with(content).open_sealed(Arc::new(seal.clone()));
            let found = objects(&store);
            let known = answered.iter().rposition(|(end, _)| *end <= at);
            let allowed = known.map_or(0, |known| known)..answered.len().min(known.map_or(0, |known| known + 1) + 1);
            let is_known = answered[allowed].iter().any(|(_, objects)| *objects == found);
            assert!(is_known || known.is_none() && found.is_empty(), "after {at} operations: {}", found.len());
        }
    }
}

fn expect(store: &Embedded, n: usize) -> Expect {
    let there = store.snapshot().get("things", &format!("k{}", n % 4)).map(|object| object.revision);
    there.map_or(Expect::Absent, Expect::At)
}

/// A key that is gone with its last object may still stand in the log: only the newest value of a key is opened.
#[tokio::test]
async fn the_log_may_name_keys_that_nothing_needs_any_more() {
    let disks = LoggedDisks::formatted();
    let empty = disks.contents();
    let seal = Toy::new(1, &[1, 2]);
    let store = disks.open_sealed(Arc::new(seal.clone()));
    store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    seal.0.writer.store(2, Ordering::Relaxed);
    store.write_one(put("a", Expect::Present, "2")).await.unwrap();
    let operations = disks.operations();
    let content = crashed(&empty, &operations, operations.len(), Unsynced::Lost);
    let refused = LoggedDisks::with(content.clone()).try_open_sealed(Arc::new(Toy::new(1, &[1]))).err();
    assert!(refused.expect("the newest is sealed under 2").to_string().contains("no key toy:2 is configured"));
    let store = LoggedDisks::with(content).open_sealed(Arc::new(Toy::new(2, &[2])));
    assert_eq!(value(&store.snapshot().get("things", "a").unwrap().json()), "2");
}
