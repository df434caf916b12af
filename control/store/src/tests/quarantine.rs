//! Objects that cannot be read are kept aside, told of, and never lost.

use redb::{Database, ReadableDatabase, TableDefinition};

use super::*;
use crate::Store;

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const QUARANTINE: TableDefinition<&str, &[u8]> = TableDefinition::new("quarantine");

/// Writes rows into the file of a closed store.
pub fn set(path: &Path, rows: &[(&str, &[u8])]) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut objects = transaction.open_table(OBJECTS).unwrap();
        for (key, value) in rows {
            objects.insert(*key, *value).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// The bytes that the quarantine has under `key`.
pub fn aside(path: &Path, key: &str) -> Option<Vec<u8>> {
    let transaction = Database::open(path).unwrap().begin_read().unwrap();
    let row = transaction.open_table(QUARANTINE).unwrap().get(key).unwrap();
    row.map(|value| value.value().to_vec())
}

#[tokio::test]
async fn a_damaged_object_does_not_stop_the_store_and_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let good = store.write_one(put("good", Expect::Absent, "1")).await.unwrap();
    drop(store);
    let damaged = b"\0\0\0\0\0\0\0\x01{\"metadata\":";
    set(&path, &[("things/bad", damaged), ("things/cut", b"\0\0"), ("nothing", b"\0\0\0\0\0\0\0\x01{}")]);

    let store = open(&path);
    let snapshot = store.snapshot();
    assert_eq!(snapshot.count("things"), 1);
    assert_eq!(snapshot.get("things", "good").map(|object| object.revision), Some(good.revision));
    assert!(snapshot.revision > good.revision, "clients that watched the lost objects list again");
    assert_eq!(store.stats().quarantined, 3);
    // Another object may take the key; the first one stays where it is.
    store.write_one(put("bad", Expect::Absent, "new")).await.unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(store.stats().quarantined, 3);
    assert_eq!(value(&store.snapshot().get("things", "bad").unwrap().json()), "new");
    drop(store);
    assert_eq!(aside(&path, "things/bad").as_deref(), Some(&damaged[..]));
    assert_eq!(aside(&path, "things/cut").as_deref(), Some(&b"\0\0"[..]));
}

#[tokio::test]
async fn a_program_that_can_read_an_object_puts_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let first = store.write_one(put("future", Expect::Absent, "1")).await.unwrap();
    drop(store);
    let store = Embedded::open(&path, |_: &str, _: &str, _: &[u8]| {
        Err(serde::de::Error::custom("this program does not know it"))
    })
    .unwrap();
    assert_eq!((store.stats().quarantined, store.snapshot().count("things")), (1, 0));
    drop(store);
    let store = open(&path);
    assert_eq!((store.stats().quarantined, store.snapshot().count("things")), (0, 1));
    let object = store.snapshot().get("things", "future").cloned().unwrap();
    assert_eq!(object.revision, first.revision);
    let second = store.write_one(put("future", Expect::At(first.revision), "2")).await.unwrap();
    assert!(second.revision > first.revision + 1);
}
