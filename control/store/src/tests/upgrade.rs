//! A store that a program of layout 2 left: rows of JSON, headers beside them, and writes that only the log has.

use std::os::unix::fs::MetadataExt;

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
pub fn to_layout_2(database: &Database, texts: &[(String, u64, String)]) {
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

/// Key, revision and JSON text of each object.
pub fn texts(store: &Embedded) -> Vec<(String, u64, String)> {
    let snapshot = store.snapshot();
    let text = |object: &crate::Object| String::from_utf8(object.json().into()).unwrap();
    snapshot.list("things", "", None).map(|(name, object)| (name.to_string(), object.revision, text(object))).collect()
}

/// A change as a watch tells it: type, key, and the texts after and before.
pub type Told = (crate::EventType, String, Vec<u8>, Option<Vec<u8>>);

/// What a watch of all changes after a revision is told.
pub fn events_after(store: &Embedded, revision: u64) -> Vec<Told> {
    let mut watch = store.watch("things", revision).unwrap();
    let mut events = watch.ready().unwrap();
    while watch.is_behind() {
        events.extend(watch.ready().unwrap());
    }
    let of = |event: &std::sync::Arc<crate::Event>| {
        let before = event.previous.as_ref().map(|previous| previous.json().into_owned());
        (event.event_type, event.key.name.to_string(), event.object.json().into_owned(), before)
    };
    events.iter().map(of).collect()
}

/// Makes so many objects, large ones where they are many, changes some of them and deletes one. Answers with the
/// revision before these changes.
pub async fn with_changes(store: &Embedded, count: usize) -> u64 {
    let text = "a text that is long enough to have a base ".repeat(if count > 100 { 200 } else { 8 });
    let writes =
        (0..count).map(|n| put(&format!("{n:04}"), Expect::Absent, &format!("@n{} {text}", n % 3))).collect::<Vec<_>>();
    store.write(writes).await.into_iter().for_each(|written| drop(written.unwrap()));
    let since = store.published();
    for (n, word) in [(7, "changed"), (8, "short"), (7, "again")] {
        store.write_one(put(&format!("{n:04}"), Expect::Present, &format!("@n1 {word} {text}"))).await.unwrap();
    }
    let gone = store.snapshot().get("things", "0009").unwrap().revision;
    store.write_one(delete("0009", gone)).await.unwrap();
    since
}

#[tokio::test]
async fn a_store_of_layout_2_opens_and_is_packed_by_the_next_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    let since = with_changes(&store, 1300).await;
    let (before, texts_before, events) = (objects(&store), texts(&store), events_after(&store, since));
    let revision = store.published();
    assert_eq!((before.len(), events.len()), (1299, 4));
    drop(store);
    to_layout_2(&Database::open(&path).unwrap(), &texts_before);

    let is_as_before = |store: &Embedded, parsed: usize| {
        assert_eq!((objects(store), program.parsed()), (before.clone(), parsed));
        assert_eq!((texts(store), store.published()), (texts_before.clone(), revision), "byte for byte");
        // A watch goes on over the upgrade.
        assert_eq!(events_after(store, since), events);
        program.parsed();
    };
    program.parsed();
    let store = program.open(&path);
    is_as_before(&store, 1299);
    let file = || std::fs::metadata(&path).unwrap();
    let before_stop = file();
    drop(store);
    assert!(file().len() < before_stop.len(), "{} of {} bytes are left", file().len(), before_stop.len());
    assert_eq!(file().mode(), before_stop.mode());
    assert!(rows(&path).iter().all(|(_, row)| row[8] == 0xf5), "all rows are packed");
    assert!(!tables(&path).iter().any(|name| name == "headers"));
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files.len(), 3, "{files:?}");

    let packed = file();
    let store = program.open(&path);
    is_as_before(&store, 0);
    drop(store);
    assert_eq!(file().ino(), packed.ino(), "a file that is small enough stays");
    is_as_before(&program.open(&path), 0);
}

#[tokio::test]
async fn objects_that_a_definition_makes_anew_are_packed_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::unmarked());
    let store = program.open(&path);
    with_changes(&store, 40).await;
    let (before, texts_before) = (objects(&store), texts(&store));
    drop(store);
    to_layout_2(&Database::open(&path).unwrap(), &texts_before);
    let store = program.open(&path);
    let remake = |object: &crate::Object| Some(draft(&format!("{} and a default", value(&object.json()))));
    store.reread("things", Box::new(remake)).await;
    assert!(value(&store.snapshot().get("things", "0001").unwrap().json()).ends_with("default"));
    // The history holds what was loaded for a while.
    store.trim(std::time::Instant::now() + std::time::Duration::from_secs(3600));
    // One was written since.
    store.write_one(put("0001", Expect::Present, "written since")).await.unwrap();
    drop(store);
    assert!(rows(&path).iter().all(|(_, row)| row[8] == 0xf5), "all rows are packed");
    let store = program.open(&path);
    let others =
        |all: Vec<(String, u64, String)>| all.into_iter().filter(|(name, ..)| name != "0001").collect::<Vec<_>>();
    assert_eq!(others(texts(&store)), others(texts_before), "the file has what was written, not what was made of it");
    assert_eq!((objects(&store).len(), store.stats().quarantined), (before.len(), 0));
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
    to_layout_2(&Database::open(&path).unwrap(), &[]);
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
    to_layout_2(
        &Database::open(&path).unwrap(),
        &[("a".into(), 1, json.clone()), ("b".into(), 2, json.replace("\"1\"", "\"2\""))],
    );
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
