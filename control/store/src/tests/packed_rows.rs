//! Packed rows in the file: a start does without parsing, and never with a header or a base of something else; bases go
//! with the last row that names them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::{
    logged_disks::{LoggedDisks, Unsynced, crashed},
    quarantine::set,
    *,
};
use crate::{
    Decode, Store,
    embedded::{file::Limits, stored_base::BASES, tables::OBJECTS},
};

/// A program: how often it parsed a text, and its mark.
#[derive(Clone)]
pub struct Program(Arc<AtomicUsize>, Option<u64>);

impl Program {
    pub fn new(mark: u64) -> Self {
        Self(Arc::default(), Some(mark))
    }

    /// One whose headers follow from more than the texts.
    pub fn unmarked() -> Self {
        Self(Arc::default(), None)
    }

    /// What it has parsed since the last call.
    pub fn parsed(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }

    pub fn open(&self, path: &Path) -> Embedded {
        Embedded::open(path, self.clone()).unwrap()
    }
}

impl Decode for Program {
    fn decode(&self, resource: &str, name: &str, json: &[u8]) -> Result<Draft, serde_json::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        header(resource, name, json)
    }

    fn mark(&self, _: &str) -> Option<u64> {
        self.1
    }
}

/// Key, revision, text and header of each object.
pub fn objects(store: &Embedded) -> Vec<(String, u64, String, crate::PackedHeader)> {
    let snapshot = store.snapshot();
    let rows = snapshot.list("things", "", None);
    rows.map(|(key, object)| (key.to_string(), object.revision, value(&object.json()), object.header().to_packed()))
        .collect()
}

/// The rows of the table of objects.
pub fn rows(path: &Path) -> Vec<(String, Vec<u8>)> {
    rows_of(&Database::open(path).unwrap())
}

/// The same, of an open database.
pub fn rows_of(database: &Database) -> Vec<(String, Vec<u8>)> {
    let transaction = database.begin_read().unwrap();
    let table = transaction.open_table(OBJECTS).unwrap();
    table.iter().unwrap().map(|row| row.unwrap()).map(|(key, row)| (key.value().into(), row.value().into())).collect()
}

/// How many rows have a header of a program with this mark.
fn header_rows(path: &Path, mark: u64) -> usize {
    rows(path).iter().filter(|(_, row)| row[8] == 0xf5 && row[10..18] == mark.to_be_bytes()).count()
}

fn bases(path: &Path) -> u64 {
    let transaction = Database::open(path).unwrap().begin_read().unwrap();
    transaction.open_table(BASES).unwrap().len().unwrap()
}

/// More than one batch of them.
const MANY: usize = 1300;

async fn with_many(path: &Path, program: &Program) -> Vec<(String, u64, String, crate::PackedHeader)> {
    let store = program.open(path);
    let text = |n: usize| format!("@n{} {}", n % 3, "a text that is long enough to have a base ".repeat(5));
    let writes = (0..MANY).map(|n| put(&format!("{n:04}"), Expect::Absent, &text(n))).collect();
    store.write(writes).await.into_iter().for_each(|written| drop(written.unwrap()));
    objects(&store)
}

#[tokio::test]
async fn a_restart_of_the_same_program_parses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let written = with_many(&path, &program).await;
    let store = program.open(&path);
    assert_eq!(program.parsed(), 0);
    assert_eq!(objects(&store), written);
    let snapshot = store.snapshot();
    assert_eq!(snapshot.list_by("things", ("node", "n1"), "", None).count(), MANY / 3);
}

#[tokio::test]
async fn another_program_parses_all_once() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let written = with_many(&path, &program).await;
    let next = Program::new(2);
    assert_eq!(objects(&next.open(&path)), written);
    assert_eq!(next.parsed(), MANY);
    assert_eq!(objects(&next.open(&path)), written);
    assert_eq!(next.parsed(), 0, "the stop before kept what it had made");
    let other = Program::unmarked();
    assert_eq!(objects(&other.open(&path)), written);
    assert_eq!(other.parsed(), MANY);
}

#[tokio::test]
async fn rows_of_json_are_parsed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    for name in ["a", "b", "c"] {
        store.write_one(put(name, Expect::Absent, &format!("{name} @n1"))).await.unwrap();
    }
    drop(store);
    let text = r#"{"metadata":{"resourceVersion":"9"},"value":"new @n2"}"#;
    // The same revision with another text, and another revision.
    let same = text.replace('9', "1");
    let row = |revision: u64, text: &str| [&revision.to_be_bytes()[..], text.as_bytes()].concat();
    set(&path, &[("things/a", &row(1, &same)), ("things/b", &row(9, text))]);
    let store = program.open(&path);
    assert_eq!(program.parsed(), 2);
    let snapshot = store.snapshot();
    for name in ["a", "b"] {
        let object = snapshot.get("things", name).unwrap();
        assert_eq!((object.header().name(), object.header().field("node")), ("new @n2", Some("n2")));
    }
}

#[tokio::test]
async fn headers_go_with_their_objects_and_later_ones_are_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    let a = store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    store.write_one(put("b", Expect::Absent, "1")).await.unwrap();
    drop(store);
    assert_eq!(header_rows(&path, 1), 2);
    // Both lack a header that this program can use.
    let next = Program::new(2);
    let store = next.open(&path);
    store.write_one(delete("a", a.revision)).await.unwrap();
    store.write_one(put("b", Expect::Present, "2")).await.unwrap();
    drop(store);
    assert_eq!((header_rows(&path, 1), header_rows(&path, 2)), (0, 1));
    next.parsed();
    assert_eq!(objects(&next.open(&path)).len(), 1);
    assert_eq!(next.parsed(), 0);
}

#[tokio::test]
async fn a_start_that_moves_a_row_aside_forgets_no_headers() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let written = with_many(&path, &program).await;
    set(&path, &[("things/zz", b"\0\0\0\0\0\0\0\x01{")]);
    let next = Program::new(2);
    assert_eq!(objects(&next.open(&path)), written);
    next.parsed();
    assert_eq!(objects(&next.open(&path)), written);
    assert_eq!(next.parsed(), 1, "the row that cannot be read is tried again");
}

#[tokio::test]
async fn an_object_that_is_gone_is_not_held_for_its_header() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    drop(store);
    let store = Program::new(2).open(&path);
    let object = Arc::downgrade(store.snapshot().get("things", "a").unwrap());
    store.write_one(delete("a", 1)).await.unwrap();
    drop(store);
    assert!(object.upgrade().is_none());
    assert!(rows(&path).is_empty());
}

/// A text that is long enough to have a base.
pub fn long(word: &str) -> String {
    format!("{word} ").repeat(80)
}

#[tokio::test]
async fn a_base_goes_with_the_last_row_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    for (name, word) in [("a1", "alpha"), ("a2", "alpha"), ("b1", "beta"), ("b2", "beta")] {
        store.write_one(put(name, Expect::Absent, &long(word))).await.unwrap();
    }
    drop(store);
    assert_eq!(bases(&path), 2);
    let before = objects(&program.open(&path));
    let store = program.open(&path);
    assert_eq!((objects(&store), program.parsed()), (before, 0));
    // Changed to another text, removed, and one of two removed.
    store.write_one(put("a1", Expect::Present, "short")).await.unwrap();
    store.write_one(delete("a2", 2)).await.unwrap();
    store.write_one(delete("b1", 3)).await.unwrap();
    drop(store);
    assert_eq!(bases(&path), 1);
    let store = program.open(&path);
    store.write_one(delete("b2", 4)).await.unwrap();
    drop(store);
    assert_eq!((bases(&path), rows(&path).len()), (0, 1));
}

#[tokio::test]
async fn a_damaged_row_is_kept_aside_wherever_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::new(1));
    let store = program.open(&path);
    store.write_one(put("a", Expect::Absent, &long("alpha"))).await.unwrap();
    drop(store);
    let (_, row) = rows(&path).pop().unwrap();
    let damaged: Vec<(String, Vec<u8>)> = (9..row.len())
        .map(|at| {
            let mut damaged = row.clone();
            damaged[at] ^= 0x10;
            (format!("things/x{at:04}"), damaged)
        })
        .chain((9..row.len()).map(|at| (format!("things/y{at:04}"), row[..at].to_vec())))
        .collect();
    let borrowed: Vec<(&str, &[u8])> = damaged.iter().map(|(key, row)| (key.as_str(), row.as_slice())).collect();
    set(&path, &borrowed);
    let store = program.open(&path);
    assert_eq!((store.snapshot().count("things"), store.stats().quarantined), (1, damaged.len() as u64));
}

#[tokio::test]
async fn objects_of_programs_without_marks_are_packed_and_their_history_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (path, program) = (dir.path().join("store"), Program::unmarked());
    let store = program.open(&path);
    let first = store.write_one(put("a", Expect::Absent, &long("alpha"))).await.unwrap();
    store.write_one(put("a", Expect::Present, &format!("{} changed", long("alpha")))).await.unwrap();
    drop(store);
    assert!(rows(&path)[0].1.len() < 200, "the text is encoded against its base");
    let store = program.open(&path);
    let events = store.watch("things", first.revision).unwrap().ready().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(value(&events[0].previous.as_ref().unwrap().json()), long("alpha"));
    let now = store.snapshot().get("things", "a").unwrap().clone();
    assert!(Arc::ptr_eq(&now, &events[0].object), "the history holds the object itself");
}

#[tokio::test]
async fn bases_survive_failed_and_torn_checkpoints() {
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 4096, ..Limits::default() });
    let empty = disks.contents();
    let store = disks.open_decoding(Program::new(1));
    for turn in 0..24 {
        disks.fail(0, turn % 3);
        let name = format!("k{}", turn % 5);
        store.write_one(put(&name, Expect::Absent, &long(&format!("w{turn}")))).await.map(drop).unwrap_or_else(|_| {
            panic!("the log takes it while the tables fail");
        });
        let there = store.snapshot().get("things", &name).unwrap().revision;
        store.write_one(delete(&name, there)).await.unwrap();
        if turn % 4 == 0 {
            store
                .write_one(put("kept", if turn == 0 { Expect::Absent } else { Expect::Present }, &long("kept")))
                .await
                .unwrap();
        }
    }
    disks.fail(0, 0);
    let held = objects(&store);
    let operations = disks.operations();
    for unsynced in [Unsynced::Lost, Unsynced::Some(0x5a5a_a5a5_0ff0_f00f), Unsynced::Torn] {
        let again = LoggedDisks::with(crashed(&empty, &operations, operations.len(), unsynced));
        let store = again.open_decoding(Program::new(1));
        assert_eq!((objects(&store), store.stats().quarantined), (held.clone(), 0), "{unsynced:?}");
    }
    drop(store);
    let store = disks.open_decoding(Program::new(1));
    assert_eq!((objects(&store), store.stats().quarantined), (held, 0));
}
