//! Sealed values that do not open: what is damaged makes nothing else unavailable, and what lacks its key stops the
//! start and is never lost.

use std::sync::atomic::Ordering;

use super::{
    packed_rows::{objects, rows},
    quarantine::{aside, set},
    sealing::work,
    toy_seal::{MARKER, Toy},
    *,
};
use crate::{
    DamagedBases, OpenError, Store,
    embedded::packed_row::{sealed_of, sealed_row},
    seal::QuarantinedKeys,
};

#[tokio::test]
async fn a_missing_key_fails_the_start_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Toy::new(1, &[1]).open(&path).unwrap();
    work(&store).await;
    let written = objects(&store);
    drop(store);

    let refused = Toy::new(2, &[2]).open(&path).err().expect("the key is missing");
    assert!(refused.to_string().contains("19 of things (no key toy:1 is configured;"), "{refused}");
    let refused = Embedded::open(&path, header).err().expect("no key is there");
    assert!(refused.to_string().contains("19 of things (no key toy:1 is configured;"), "{refused}");
    let store = Toy::new(2, &[1, 2]).open(&path).unwrap();
    assert_eq!(objects(&store), written);
    drop(store);

    // Who says so goes on without; the key brings all back whose names are free.
    let store = Toy::new(2, &[2]).open_damaged(&path, DamagedBases::Quarantine).unwrap();
    assert_eq!((store.snapshot().count("things"), store.stats().quarantined), (0, 19));
    store.write_one(put("k0", Expect::Absent, "another")).await.unwrap();
    drop(store);
    assert!(aside(&path, "things/k0").is_some_and(|row| row[8] == 0xf6), "as it was sealed");
    let store = Toy::new(2, &[1, 2]).open(&path).unwrap();
    assert_eq!((store.snapshot().count("things"), store.stats().quarantined), (19, 1));
    assert_eq!(value(&store.snapshot().get("things", "k0").unwrap().json()), "another");
}

/// Its checksum is wrong then; only who knows how to make it right again can have the start refused.
#[tokio::test]
async fn a_value_that_was_moved_or_changed_is_kept_aside_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1]));
    let store = seal.open(&path).unwrap();
    for name in ["a", "b", "c"] {
        store.write_one(put(name, Expect::Absent, MARKER)).await.unwrap();
    }
    drop(store);
    let known = rows(&path);
    let mut changed = known[2].1.clone();
    *changed.last_mut().unwrap() ^= 1;
    set(&path, &[("things/b", &known[0].1), ("things/c", &changed)]);
    let store = seal.open(&path).unwrap();
    let names: Vec<String> = objects(&store).into_iter().map(|(name, ..)| name).collect();
    assert_eq!((names, store.stats().quarantined), (vec!["a".to_owned()], 2));
}

#[tokio::test]
async fn damage_to_any_byte_of_a_sealed_row_makes_that_object_alone_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1]));
    let store = seal.open(&path).unwrap();
    let writes = (0..400).map(|n| put(&format!("k{n:03}"), Expect::Absent, "value")).collect();
    store.write(writes).await.into_iter().for_each(|written| drop(written.unwrap()));
    drop(store);
    let known = rows(&path);
    let length = known[0].1.len();
    assert!(length < 400, "{length}: one object for each byte");
    let damages: [fn(&mut Vec<u8>, usize); 5] = [
        |row, at| row[at] ^= 1,
        |row, at| row[at] ^= 0x10,
        |row, at| row[at] ^= 0x80,
        |row, at| row[at] = !row[at],
        |row, at| row.truncate(at),
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        // Where nothing is read that is not sealed, too: damage makes any row look like that.
        seal.0.reads_plain.store(n % 2 == 0, Ordering::Relaxed);
        let damaged: Vec<(&str, Vec<u8>)> = (0..length)
            .map(|at| {
                let (key, mut row) = (known[at].0.as_str(), known[at].1.clone());
                damage(&mut row, at);
                (key, row)
            })
            .collect();
        let again = dir.path().join(format!("store{n}"));
        std::fs::copy(&path, &again).unwrap();
        set(&again, &damaged.iter().map(|(key, row)| (*key, row.as_slice())).collect::<Vec<_>>());
        let store = seal.open(&again).unwrap_or_else(|error| panic!("{n}: {error}"));
        assert_eq!((store.stats().quarantined, store.snapshot().count("things")), (length as u64, 400 - length), "{n}");
    }
}

#[tokio::test]
async fn another_secret_under_the_name_of_a_key_refuses_the_start_though_it_opens_others() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1, 11]));
    let store = seal.open(&path).unwrap();
    store.write_one(put("old", Expect::Absent, "1")).await.unwrap();
    seal.0.writer.store(11, Ordering::Relaxed);
    store.write_one(put("new", Expect::Absent, "2")).await.unwrap();
    let written = objects(&store);
    drop(store);
    let refused = Toy::new(11, &[11]).open(&path).err().expect("one does not open").to_string();
    let told = "1 of things (the key toy:1 is not the one that encrypted them; old is one)";
    assert!(refused.contains(told), "{refused}");
    assert_eq!(objects(&seal.open(&path).unwrap()), written, "nothing is lost");
    let store = Toy::new(11, &[11]).open_damaged(&path, DamagedBases::Quarantine).unwrap();
    assert_eq!((store.snapshot().count("things"), store.stats().quarantined), (1, 1));
    drop(store);
    assert_eq!(seal.open(&path).unwrap().snapshot().count("things"), 2);
}

#[tokio::test]
async fn a_value_that_was_exchanged_with_its_checksum_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1]));
    let store = seal.open(&path).unwrap();
    store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    store.write_one(put("b", Expect::Absent, "2")).await.unwrap();
    drop(store);
    let known = rows(&path);
    let (revision, sealed) = sealed_of("things/a", &known[0].1).unwrap();
    let unknown = [b"\xff\xff", sealed].concat();
    for (sealed, told) in [
        (sealed, "1 of things (the key toy:1 is not the one that encrypted them; b is one)"),
        (unknown.as_slice(), "1 of things (they have no encrypted form that is known; b is one)"),
    ] {
        set(&path, &[("things/b", &sealed_row("things/b", revision, sealed))]);
        let refused = seal.open(&path).err().expect("it is another's").to_string();
        assert!(refused.contains(told), "{refused}");
    }
    set(&path, &[("things/b", &known[1].1)]);
    assert_eq!(seal.open(&path).unwrap().snapshot().count("things"), 2);
}

#[tokio::test]
async fn rows_of_one_name_come_back_the_latest_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Toy::new(1, &[1]).open(&path).unwrap();
    store.write_one(put("a", Expect::Absent, "first")).await.unwrap();
    drop(store);
    for key in [2, 3] {
        let store = Toy::new(key, &[key]).open_damaged(&path, DamagedBases::Quarantine).unwrap();
        store.write_one(put("a", Expect::Absent, &format!("under {key}"))).await.unwrap();
    }
    let all = Toy::new(3, &[1, 2, 3]);
    for (expected, left) in [("under 3", 2), ("under 2", 1), ("first", 0)] {
        let store = all.open(&path).unwrap();
        let object = store.snapshot().get("things", "a").cloned().unwrap();
        assert_eq!((value(&object.json()).as_str(), store.stats().quarantined), (expected, left));
        store.write_one(delete("a", object.revision)).await.unwrap();
    }
    assert_eq!(all.open(&path).unwrap().snapshot().count("things"), 0);
}

/// Resource, label and count of what is kept aside.
async fn quarantined_keys(store: &Embedded) -> QuarantinedKeys {
    let (told, keys) = tokio::sync::oneshot::channel();
    let work = move |stored: &crate::StoredStates<'_>| drop(told.send(stored.quarantined.clone()));
    store.between_writes(Box::new(work)).await.unwrap();
    keys.await.unwrap()
}

#[tokio::test]
async fn what_is_kept_aside_still_names_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Toy::new(1, &[1]).open(&path).unwrap();
    for name in ["a", "b"] {
        store.write_one(put(name, Expect::Absent, "1")).await.unwrap();
    }
    drop(store);
    let mut expected = QuarantinedKeys::default();
    (0..2).for_each(|_| expected.add("things", "toy:1"));
    let store = Toy::new(2, &[2]).open_damaged(&path, DamagedBases::Quarantine).unwrap();
    assert_eq!(quarantined_keys(&store).await, expected, "at the start that moves them");
    store.write_one(put("a", Expect::Absent, "another")).await.unwrap();
    drop(store);
    let store = Toy::new(2, &[2]).open(&path).unwrap();
    assert_eq!(quarantined_keys(&store).await, expected, "and at later ones");
    drop(store);
    let store = Toy::new(2, &[1, 2]).open(&path).unwrap();
    let told = quarantined_keys(&store).await;
    assert_eq!(told.iter().collect::<Vec<_>>(), [("things", "toy:1", 1)], "its name is taken");
}

#[tokio::test]
async fn what_is_kept_aside_without_encryption_needs_identity() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    for name in ["a", "b"] {
        store.write_one(put(name, Expect::Absent, "1")).await.unwrap();
    }
    drop(store);
    let seal = Toy::new(1, &[1]);
    seal.0.reads_plain.store(false, Ordering::Relaxed);
    let store = seal.open_damaged(&path, DamagedBases::Quarantine).unwrap();
    let told = async |store: &Embedded| {
        let keys = quarantined_keys(store).await;
        keys.iter().map(|(resource, label, count)| format!("{resource} {label} {count}")).collect::<Vec<_>>()
    };
    assert_eq!(told(&store).await, ["things identity 2"], "at the start that moves them");
    store.write_one(put("a", Expect::Absent, "another")).await.unwrap();
    drop(store);
    let store = seal.open(&path).unwrap();
    assert_eq!(told(&store).await, ["things identity 2"], "and at later ones");
    drop(store);
    seal.0.reads_plain.store(true, Ordering::Relaxed);
    let store = seal.open(&path).unwrap();
    assert_eq!(told(&store).await, ["things identity 1"], "its name is taken");
    drop(store);
    // What is damaged comes back with nothing.
    let damaged = [b"\0\0\0\0\0\0\0\x01{".to_vec(), b"damaged".to_vec()].concat();
    set(&path, &[("things/c", &damaged)]);
    drop(seal.open(&path).unwrap());
    assert_eq!(told(&seal.open(&path).unwrap()).await, ["things identity 1"]);
}

#[tokio::test]
async fn an_outage_of_a_key_service_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seal) = (dir.path().join("store"), Toy::new(1, &[1]));
    let store = seal.open(&path).unwrap();
    work(&store).await;
    let written = objects(&store);
    drop(store);
    seal.0.is_away.store(true, Ordering::Relaxed);
    for damaged in [DamagedBases::Refuse, DamagedBases::Quarantine] {
        let refused = seal.open_damaged(&path, damaged).err().expect("nothing opens");
        assert!(matches!(refused, OpenError::KeyService { .. }), "{refused}");
        let told = refused.to_string();
        assert!(told.contains("19 of things (the service with the key toy:1 failed: connection refused;"), "{told}");
        assert!(!told.contains("--quarantine-damaged-objects"), "{told}");
    }
    seal.0.is_away.store(false, Ordering::Relaxed);
    let store = seal.open(&path).unwrap();
    assert_eq!((objects(&store), store.stats().quarantined), (written, 0));
}

#[tokio::test]
async fn values_that_are_not_sealed_are_refused_where_nothing_allows_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    drop(store);
    let seal = Toy::new(1, &[1]);
    seal.0.reads_plain.store(false, Ordering::Relaxed);
    let refused = seal.open(&path).err().expect("it is not sealed").to_string();
    assert!(refused.contains("1 of things (stored without encryption"), "{refused}");
    seal.0.reads_plain.store(true, Ordering::Relaxed);
    assert_eq!(seal.open(&path).unwrap().snapshot().count("things"), 1);
}
