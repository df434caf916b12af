//! A store that a program of layout 2 left: rows of JSON, headers beside them, and writes that only the log has.

use redb::{Database, ReadableDatabase, TableDefinition, TableHandle};

use super::{
    packed_rows::{Program, objects, rows},
    *,
};
use crate::{
    Store,
    embedded::tables::{META, OBJECTS},
};

const HEADERS: TableDefinition<&str, &[u8]> = TableDefinition::new("headers");

/// Makes the tables of a store what layout 2 would have: every row the revision and the JSON text.
fn to_layout_2(path: &Path, texts: &[(String, u64, String)]) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut objects = transaction.open_table(OBJECTS).unwrap();
        let mut headers = transaction.open_table(HEADERS).unwrap();
        for (name, revision, text) in texts {
            let key = format!("things/{name}");
            let row = [&revision.to_be_bytes()[..], text.as_bytes()].concat();
            objects.insert(key.as_str(), row.as_slice()).unwrap();
            headers.insert(key.as_str(), &b"a header of some program"[..]).unwrap();
        }
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("layout", 2).unwrap();
        meta.remove("checkpoints").unwrap();
        transaction.delete_table(crate::embedded::stored_base::BASES).unwrap();
    }
    transaction.commit().unwrap();
}

fn tables(path: &Path) -> Vec<String> {
    let transaction = Database::open(path).unwrap().begin_read().unwrap();
    let mut names: Vec<String> = transaction.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_store_of_layout_2_opens_and_is_packed_by_the_next_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    let text = "a text that is long enough to have a base ".repeat(200);
    let writes = (0..1300).map(|n| put(&format!("{n:04}"), Expect::Absent, &format!("@n{} {text}", n % 3))).collect();
    store.write(writes).await.into_iter().for_each(|written| drop(written.unwrap()));
    let changed = store.write_one(put("0007", Expect::Present, &format!("@n1 changed {text}"))).await.unwrap();
    let before = objects(&store);
    let snapshot = store.snapshot();
    let texts: Vec<(String, u64, String)> = snapshot
        .list("things", "", None)
        .map(|(name, object)| (name.to_string(), object.revision, String::from_utf8(object.json().into()).unwrap()))
        .collect();
    drop(store);
    to_layout_2(&path, &texts);

    let store = program.open(&path);
    assert_eq!((objects(&store), program.parsed()), (before.clone(), 1300));
    // A watch goes on over the upgrade.
    let events = store.watch("things", changed.revision - 1).unwrap().ready().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(&*events[0].key.name, "0007");
    program.parsed();
    let length = || std::fs::metadata(&path).unwrap().len();
    let before_stop = length();
    drop(store);
    assert!(length() < before_stop, "{} of {before_stop} bytes are left", length());
    assert!(rows(&path).iter().all(|(_, row)| row[8] == 0xf5), "all rows are packed");
    assert!(!tables(&path).iter().any(|name| name == "headers"));

    let store = program.open(&path);
    assert_eq!((objects(&store), program.parsed()), (before, 0));
    assert_eq!(store.watch("things", changed.revision - 1).unwrap().ready().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_kept_aside_stays_so_over_the_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    drop(store);
    let damaged = b"\0\0\0\0\0\0\0\x01{\"metadata\":";
    super::quarantine::set(&path, &[("things/bad", damaged)]);
    to_layout_2(&path, &[]);
    for _ in 0..3 {
        let store = program.open(&path);
        assert_eq!((store.snapshot().count("things"), store.stats().quarantined), (1, 1));
        drop(store);
        assert_eq!(super::quarantine::aside(&path, "things/bad").as_deref(), Some(&damaged[..]));
    }
}

#[test]
fn a_copy_that_was_cut_short_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("store.new"));
    drop(open(&path));
    std::fs::write(&copy, vec![0; 4096]).unwrap();
    drop(open(&path));
    assert!(path.exists() && !copy.exists());
}

#[tokio::test]
async fn a_crash_after_the_upgrade_leaves_rows_of_both_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    for name in ["a", "b"] {
        store.write_one(put(name, Expect::Absent, &"text ".repeat(80))).await.unwrap();
    }
    let json = String::from_utf8(store.snapshot().get("things", "a").unwrap().json().into()).unwrap();
    let before = objects(&store);
    drop(store);
    to_layout_2(&path, &[("a".into(), 1, json.clone()), ("b".into(), 2, json.replace("\"1\"", "\"2\""))]);
    // The first of them was packed, and then the program was killed.
    let again = dir.path().join("again");
    drop(program.open(&path));
    std::fs::copy(&path, &again).unwrap();
    super::quarantine::set(
        &again,
        &[("things/b", &[&2_u64.to_be_bytes()[..], json.replace("\"1\"", "\"2\"").as_bytes()].concat())],
    );
    assert_eq!(objects(&program.open(&again)), before);
    assert!(rows(&again).iter().all(|(_, row)| row[8] == 0xf5));
    assert_eq!(objects(&program.open(&again)), before);
}
