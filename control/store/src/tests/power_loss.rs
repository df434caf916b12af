//! Loss of power at every step: a write that was not synced may be gone, there, or there in part.
//!
//! kill -9 keeps the page cache, so it cannot show a missing sync. Here each disk is a part of one log of what was
//! done; a crash replays a part of it: all up to a disk's last sync, and of what came after nothing, some, or all but
//! half of the last write. A file gets its name once it is complete, so the log begins with an empty store.

use std::ops::Range;

use super::{
    logged_disks::{Contents, LoggedDisks, Operation, Unsynced, crashed},
    *,
};
use crate::{CommitError, Snapshot, Store, Transaction, embedded::file::Limits};

/// One commit: its objects, and the span of operations in which it was made.
struct Commit {
    expected: Vec<(String, String)>,
    span: Range<usize>,
}

const COMMITS: usize = 12;

/// Commits transactions of several keys; tells what each should leave and when it was answered.
async fn work(disk: &LoggedDisks) -> Vec<Commit> {
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
    rows.map(|(name, object)| (name.to_string(), value(&object.json()))).collect()
}

/// The store on `content` holds what was answered by then, and nothing in part: the state after one of the commits that
/// were answered, or under way.
fn check(content: Contents, commits: &[Commit], at: usize, what: &str) -> LoggedDisks {
    let disk = LoggedDisks::with(content);
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
    crash_at_every_step(LoggedDisks::formatted()).await;
}

#[tokio::test]
async fn no_answered_commit_is_lost_during_checkpoints() {
    // After nearly every commit.
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 4096, ..Limits::default() });
    let operations = crash_at_every_step(disks).await;
    let uses = operations.iter().filter(|(disk, operation)| {
        *disk > 0 && matches!(operation, Operation::Write { offset: 0, bytes } if bytes.len() < 1 << 20)
    });
    assert!(uses.count() > 0, "the log's files are used in turns");
}

async fn crash_at_every_step(disk: LoggedDisks) -> Vec<(usize, Operation)> {
    let empty = disk.contents();
    let commits = work(&disk).await;
    let operations = disk.operations();
    let syncs = operations.iter().filter(|operation| matches!(operation, (_, Operation::Sync))).count();
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
    operations
}

#[tokio::test]
async fn what_is_answered_after_a_failed_sync_is_durable() {
    let disk = LoggedDisks::formatted();
    let empty = disk.contents();
    let store = disk.open();
    let mut acknowledged = Vec::new();
    for count in 0..8 {
        // Of two syncs in a row, too: the one of the commit, and the one of the opening after it.
        disk.fail(1, count % 3);
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
    let found = held(&LoggedDisks::with(content).open().snapshot());
    assert_eq!(found, held(&store.snapshot()), "what is read is what is durable");
    for name in &acknowledged {
        assert!(found.iter().any(|(known, _)| known == name), "{name} is lost");
    }
}

#[tokio::test]
async fn writes_go_on_while_the_tables_cannot_be_written_until_the_log_is_full() {
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 20_000, full: 200_000 });
    let empty = disks.contents();
    let store = disks.open();
    disks.fail(0, usize::MAX);
    let mut written = Vec::new();
    let refused = loop {
        let name = format!("k{}", written.len());
        match store.write_one(put(&name, Expect::Absent, &"x".repeat(5000))).await {
            Ok(_) => written.push(name),
            Err(error) => break error,
        }
        assert!(written.len() < 1000, "the log is bounded");
    };
    // Told by the checkpoint that was tried for this write, or of the last one, by the log that waits for it.
    let cause = "the store the disk";
    assert!(matches!(&refused, CommitError::Unavailable { message } if message.contains(cause)), "{refused}");
    assert!(written.len() > 20, "{} writes", written.len());
    // A crash now loses none of them.
    let operations = disks.operations();
    let crashed = crashed(&empty, &operations, operations.len(), Unsynced::Lost);
    let all = |store: &Embedded| written.iter().all(|name| store.snapshot().get("things", name).is_some());
    assert!(all(&LoggedDisks::with(crashed).open()));

    disks.fail(0, 0);
    let back = async {
        while store.write_one(put("back", Expect::Absent, "again")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), back).await.expect("the tables are written again");
    drop(store);
    let store = disks.open();
    assert!(all(&store) && store.snapshot().get("things", "back").is_some());
}

#[tokio::test]
async fn a_log_that_does_not_fit_the_tables_is_refused() {
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 1, ..Limits::default() });
    let [old_tables, _, _] = disks.contents();
    let store = disks.open();
    let mut refused = None;
    for count in 0..200 {
        store.write_one(put(&format!("k{count}"), Expect::Absent, "1")).await.unwrap();
        let [_, first, second] = disks.contents();
        // Once both of the log's files have been used again, it begins after what the old tables have.
        refused = LoggedDisks::with([old_tables.clone(), first, second]).try_open().err();
        if refused.is_some() {
            break;
        }
    }
    let error = refused.expect("the log does not begin with the store for ever");
    assert!(error.to_string().contains("restore both together"), "{error}");
    // Damaged in the middle.
    let disks = LoggedDisks::formatted();
    let [tables, _, second] = disks.contents();
    let store = disks.open();
    for count in 0..3 {
        store.write_one(put(&format!("k{count}"), Expect::Absent, "1")).await.unwrap();
    }
    let [_, mut first, _] = disks.contents();
    first[2 * 4096 + 20] ^= 1;
    let error = LoggedDisks::with([tables, first, second]).try_open().err().unwrap();
    assert!(error.to_string().contains("is damaged before byte 12288"), "{error}");
    // Of another store.
    let other = LoggedDisks::formatted().contents();
    let [_, first, second] = disks.contents();
    let error = LoggedDisks::with([other[0].clone(), first, second]).try_open().err().unwrap();
    assert!(error.to_string().contains("belongs to another store"), "{error}");
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
    let disk = LoggedDisks::formatted();
    let empty = disk.contents();
    let commits = runtime.block_on(work(&disk));
    // As if the last commit's syncs had not been made.
    let last = commits.last().unwrap().span.clone();
    let mut operations = disk.operations();
    operations.truncate(last.end);
    let unsynced: Vec<(usize, Operation)> = operations
        .iter()
        .enumerate()
        .filter(|(at, operation)| !(last.contains(at) && matches!(operation, (_, Operation::Sync))))
        .map(|(_, operation)| operation.clone())
        .collect();
    let content = crashed(&empty, &unsynced, unsynced.len(), Unsynced::Lost);
    let caught = std::panic::catch_unwind(|| drop(check(content, &commits, last.end, "a missing sync")));
    assert!(caught.is_err());
}
