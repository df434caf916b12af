//! Headers in the file: a start does without parsing, and never with a header of something else.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use super::{quarantine::set, *};
use crate::{Decode, Store, embedded::stored_header::HEADERS};

/// A program: how often it parsed a text, and its mark.
#[derive(Clone)]
struct Program(Arc<AtomicUsize>, Option<u64>);

impl Program {
    fn new(mark: u64) -> Self {
        Self(Arc::default(), Some(mark))
    }

    /// What it has parsed since the last call.
    fn parsed(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }

    fn open(&self, path: &Path) -> Embedded {
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
fn objects(store: &Embedded) -> Vec<(String, u64, String, crate::PackedHeader)> {
    let snapshot = store.snapshot();
    let rows = snapshot.list("things", "", None);
    rows.map(|(key, object)| (key.to_string(), object.revision, value(&object.json()), object.header().to_packed()))
        .collect()
}

fn header_rows(path: &Path) -> u64 {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    transaction.open_table(HEADERS).unwrap().len().unwrap()
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
    // One whose headers follow from more than the text.
    let other = Program(Arc::default(), None);
    assert_eq!(objects(&other.open(&path)), written);
    assert_eq!(other.parsed(), MANY);
}

#[tokio::test]
async fn what_a_program_without_headers_wrote_is_parsed() {
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
    assert_eq!(header_rows(&path), 2);
    // Both lack a header that this program can use.
    let next = Program::new(2);
    let store = next.open(&path);
    store.write_one(delete("a", a.revision)).await.unwrap();
    store.write_one(put("b", Expect::Present, "2")).await.unwrap();
    drop(store);
    assert_eq!(header_rows(&path), 1);
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
    assert_eq!(header_rows(&path), 0);
}
