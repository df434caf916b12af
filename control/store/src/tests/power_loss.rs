//! Loss of power at every step: a write that was not synced may be gone, there, or there in part.
//!
//! kill -9 keeps the page cache, so it cannot show a missing sync. Here the disk is a log of what was done to it; a
//! crash replays a part of it: all up to the last sync, and of what came after nothing, some, or all but half of the
//! last write. A file gets its name once it is complete, so the log begins with an empty store.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
};

use redb::{BackendError, Builder, StorageBackend};

use super::*;
use crate::{CommitError, Snapshot, Store, Transaction, embedded::file::File};

/// What was done to a disk.
#[derive(Clone, Debug)]
enum Operation {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
    Sync,
}

/// A disk that remembers all that was done to it.
#[derive(Clone, Debug, Default)]
struct LoggedDisk(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    /// Before the first operation.
    formatted: Vec<u8>,
    content: Vec<u8>,
    operations: Vec<Operation>,
    /// How many syncs from now on fail: each loses what it should have made durable.
    failing_syncs: usize,
}

impl LoggedDisk {
    fn with(content: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Log { formatted: content.clone(), content, ..Log::default() })))
    }

    /// A disk with an empty store.
    fn formatted() -> Self {
        let disk = Self::default();
        drop(disk.open());
        let content = disk.content();
        Self::with(content)
    }

    fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap().content.clone()
    }

    fn operations(&self) -> Vec<Operation> {
        self.0.lock().unwrap().operations.clone()
    }

    /// How many operations were made so far.
    fn now(&self) -> usize {
        self.0.lock().unwrap().operations.len()
    }

    fn operate(&self, operation: Operation) {
        let mut log = self.0.lock().unwrap();
        apply(&mut log.content, &operation);
        log.operations.push(operation);
    }

    fn open(&self) -> Embedded {
        let disk = self.clone();
        let open = move |builder: &Builder| builder.create_with_backend(disk.clone());
        Embedded::load(File::open_with(Path::new("the disk"), Box::new(open)).unwrap(), header).unwrap()
    }
}

fn apply(content: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write { offset, bytes } => {
            let start = *offset as usize;
            content.resize(content.len().max(start + bytes.len()), 0);
            content[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Operation::SetLen(len) => content.resize(*len as usize, 0),
        Operation::Sync => {}
    }
}

impl StorageBackend for LoggedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let log = self.0.lock().unwrap();
        let start = offset as usize;
        let bytes = log.content.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate(Operation::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        {
            let mut log = self.0.lock().unwrap();
            if log.failing_syncs > 0 {
                log.failing_syncs -= 1;
                let durable = crashed(&log.formatted, &log.operations, log.operations.len(), Unsynced::Lost);
                let synced = log.operations.iter().rposition(|operation| matches!(operation, Operation::Sync));
                log.operations.truncate(synced.map_or(0, |last| last + 1));
                log.content = durable;
                return Err(io::Error::other("the disk failed"));
            }
        }
        self.operate(Operation::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(Operation::Write { offset, bytes: data.to_vec() });
        Ok(())
    }

    fn try_lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// What becomes of the operations between the last sync and the crash.
#[derive(Clone, Copy, Debug)]
enum Unsynced {
    Lost,
    /// Those with a set bit are there, as a disk that reorders writes may have it.
    Some(u64),
    /// All are there, but of the last write only the first half.
    Torn,
}

/// The disk after a crash at `at` operations, from what it held `before` them.
fn crashed(before: &[u8], operations: &[Operation], at: usize, unsynced: Unsynced) -> Vec<u8> {
    let synced = operations[..at].iter().rposition(|operation| matches!(operation, Operation::Sync));
    let synced = synced.map_or(0, |last| last + 1);
    let mut content = before.to_vec();
    operations[..synced].iter().for_each(|operation| apply(&mut content, operation));
    let rest = &operations[synced..at];
    for (index, operation) in rest.iter().enumerate() {
        match (unsynced, operation) {
            (Unsynced::Lost, _) => {}
            (Unsynced::Some(bits), _) if bits >> (index % 64) & 1 == 0 => {}
            (Unsynced::Torn, Operation::Write { offset, bytes }) if index + 1 == rest.len() => {
                let bytes = bytes[..bytes.len() / 2].to_vec();
                apply(&mut content, &Operation::Write { offset: *offset, bytes });
            }
            (Unsynced::Some(_) | Unsynced::Torn, _) => apply(&mut content, operation),
        }
    }
    content
}

/// One commit: its objects, and the span of operations in which it was made.
struct Commit {
    expected: Vec<(String, String)>,
    span: Range<usize>,
}

const COMMITS: usize = 12;

/// Commits transactions of several keys; tells what each should leave and when it was answered.
async fn work(disk: &LoggedDisk) -> Vec<Commit> {
    let store = disk.open();
    let mut commits = Vec::new();
    for count in 0..COMMITS {
        let begin = disk.now();
        let snapshot = store.snapshot();
        // Big enough now and then to make the file grow.
        let padding = if count % 4 == 3 { 40_000 } else { 30 };
        let write = |name: &str| {
            let there = snapshot.get("things", name).map(|object| object.revision);
            put(name, there.map_or(Expect::Absent, Expect::At), &format!("{count} {}", "x".repeat(padding)))
        };
        let mut writes = vec![write("a"), write("b"), write(&format!("c{}", count % 3))];
        // Objects go, too.
        let oldest = format!("c{}", (count + 1) % 3);
        if let Some(object) = snapshot.get("things", &oldest) {
            writes.push(delete(&oldest, object.revision));
        }
        store.commit(Transaction { require: Vec::new(), writes }).await.unwrap();
        commits.push(Commit { expected: held(&store.snapshot()), span: begin..disk.now() });
    }
    commits
}

fn held(snapshot: &Snapshot) -> Vec<(String, String)> {
    let rows = snapshot.list("things", "", None);
    rows.map(|(name, object)| (name.to_string(), value(object.json()))).collect()
}

/// The store on `content` holds what was answered by then, and nothing in part: the state after one of the commits that
/// were answered, or under way.
fn check(content: Vec<u8>, commits: &[Commit], at: usize, what: &str) -> LoggedDisk {
    let disk = LoggedDisk::with(content);
    let store = disk.open();
    let found = held(&store.snapshot());
    let answered = commits.iter().take_while(|commit| commit.span.end <= at).count();
    let begun = commits.iter().take_while(|commit| commit.span.start < at).count();
    let state = |count: usize| count.checked_sub(1).map_or(&[][..], |last| &commits[last].expected);
    assert!(
        (answered..=begun).any(|count| state(count) == found),
        "{what}: {answered} commits were answered and {begun} begun, but the store holds {:?}",
        found.iter().map(|(name, value)| (name, value.split(' ').next())).collect::<Vec<_>>()
    );
    disk
}

#[tokio::test]
async fn no_answered_commit_is_lost_with_what_was_not_synced() {
    let disk = LoggedDisk::formatted();
    let empty = disk.content();
    let commits = work(&disk).await;
    let operations = disk.operations();
    let syncs = operations.iter().filter(|operation| matches!(operation, Operation::Sync)).count();
    assert!(syncs >= COMMITS, "{syncs} syncs for {COMMITS} commits");
    // Spread over the bits; each step has another part of its writes.
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for at in 0..=operations.len() {
        bits = bits.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d);
        for unsynced in [Unsynced::Lost, Unsynced::Some(bits), Unsynced::Torn] {
            let what = format!("crash after {at} of {} operations, {unsynced:?}", operations.len());
            let content = crashed(&empty, &operations, at, unsynced);
            let recovered = check(content.clone(), &commits, at, &what);
            if at % 16 != 0 {
                continue;
            }
            // A second crash, while the first is recovered from.
            let recovery = recovered.operations();
            for again in (0..=recovery.len()).step_by(3) {
                let what = format!("{what}, and after {again} operations of the recovery");
                check(crashed(&content, &recovery, again, unsynced), &commits, at, &what);
            }
        }
    }
}

#[tokio::test]
async fn what_is_answered_after_a_failed_sync_is_durable() {
    let disk = LoggedDisk::formatted();
    let empty = disk.content();
    let store = disk.open();
    let mut acknowledged = Vec::new();
    for count in 0..8 {
        // Of two syncs in a row, too: the one of the commit, and the one of the opening after it.
        disk.0.lock().unwrap().failing_syncs = count % 3;
        for (name, fails) in [("first", count % 3 > 0), ("second", count % 3 > 1), ("third", false)] {
            let name = format!("{name}{count}");
            match store.write_one(put(&name, Expect::Absent, "1")).await {
                Ok(_) => acknowledged.push(name),
                Err(CommitError::Unavailable { .. }) => assert!(fails, "{name}"),
                Err(other) => panic!("{name}: {other}"),
            }
        }
        assert!(store.stats().check().is_ok());
    }
    assert!(acknowledged.len() >= 8 && store.stats().failed > 0);
    let operations = disk.operations();
    let content = crashed(&empty, &operations, operations.len(), Unsynced::Lost);
    let found = held(&LoggedDisk::with(content).open().snapshot());
    assert_eq!(found, held(&store.snapshot()), "what is read is what is durable");
    for name in &acknowledged {
        assert!(found.iter().any(|(known, _)| known == name), "{name} is lost");
    }
}

#[test]
fn a_file_whose_creation_was_cut_short_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    // What is left: a file with neither a whole header nor the final name.
    std::fs::write(dir.path().join("store.new"), vec![0; 4096]).unwrap();
    drop(open(&path));
    assert!(!dir.path().join("store.new").exists());
    drop(open(&path));
}

#[test]
fn the_test_notices_a_commit_that_was_not_synced() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let disk = LoggedDisk::formatted();
    let empty = disk.content();
    let commits = runtime.block_on(work(&disk));
    // As if the last commit's syncs had not been made.
    let last = commits.last().unwrap().span.clone();
    let mut operations = disk.operations();
    operations.truncate(last.end);
    let unsynced: Vec<Operation> = operations
        .iter()
        .enumerate()
        .filter(|(at, operation)| !(last.contains(at) && matches!(operation, Operation::Sync)))
        .map(|(_, operation)| operation.clone())
        .collect();
    let content = crashed(&empty, &unsynced, unsynced.len(), Unsynced::Lost);
    let caught = std::panic::catch_unwind(|| drop(check(content, &commits, last.end, "a missing sync")));
    assert!(caught.is_err());
}
