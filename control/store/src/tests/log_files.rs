//! The two files of the write-ahead log when something goes wrong between them and the tables.

use super::{
    logged_disks::{LoggedDisks, Operation, Unsynced, crashed},
    *,
};
use crate::{Amendment, CommitError, Store, Transaction, embedded::file::Limits};

/// Writes objects of 5,000 bytes until one is refused. Answers with the names of the others, and why.
async fn write_until_refused(store: &Embedded, prefix: &str) -> (Vec<String>, CommitError) {
    let mut written = Vec::new();
    loop {
        let name = format!("{prefix}{}", written.len());
        match store.write_one(put(&name, Expect::Absent, &"x".repeat(5000))).await {
            Ok(_) => written.push(name),
            Err(error) => return (written, error),
        }
        assert!(written.len() < 3000, "the log is bounded");
    }
}

/// What a store finds after a loss of power now.
fn after_power_loss(disks: &LoggedDisks, empty: &[Vec<u8>; 3]) -> Embedded {
    let operations = disks.operations();
    LoggedDisks::with(crashed(empty, &operations, operations.len(), Unsynced::Lost)).open()
}

fn has_all(store: &Embedded, names: &[String]) -> bool {
    names.iter().all(|name| store.snapshot().get("things", name).is_some())
}

#[tokio::test]
async fn a_file_that_was_written_after_a_checkpoint_began_is_not_used_again_before_the_next() {
    // The tables take long to write, and the log's files find no space to grow: they are used in turns while a
    // checkpoint is under way.
    for round in 0..20 {
        let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 20_000, ..Limits::default() });
        let empty = disks.contents();
        let store = disks.open();
        let first = store.write_one(put("first", Expect::Absent, "1")).await.map(|_| vec!["first".to_owned()]).unwrap();
        for disk in [1, 2] {
            disks.limit_space(disk, round % 2 == 0);
        }
        let mut names = first;
        for count in 0..120 {
            let name = format!("k{count}");
            match store.write_one(put(&name, Expect::Absent, &"x".repeat(20_000))).await {
                Ok(_) => names.push(name),
                Err(CommitError::Full { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(names.len() > 20, "{} writes", names.len());
        assert!(has_all(&after_power_loss(&disks, &empty), &names), "round {round}");
    }
}

#[tokio::test]
async fn a_deletion_goes_on_when_neither_log_nor_tables_find_space_and_others_write_all_the_while() {
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 20_000, full: 300_000 });
    let store = disks.open();
    let mut victims = Vec::new();
    for count in 0..50 {
        let object = store.write_one(put(&format!("v{count}"), Expect::Absent, &"x".repeat(2000))).await.unwrap();
        victims.push((format!("v{count}"), object.revision));
    }
    for disk in 0..3 {
        disks.limit_space(disk, true);
    }
    let lease = store.write_one(put("lease", Expect::Absent, "0")).await;
    let (_, refused) = write_until_refused(&store, "k").await;
    assert!(matches!(refused, CommitError::Full { .. }), "{refused}");
    assert!(store.stats().check().is_ok(), "reads and deletions can make space");
    // Updates may not use what is kept for deletions.
    if let Ok(mut lease) = lease {
        for count in 0..500 {
            match store.write_one(put("lease", Expect::At(lease.revision), &count.to_string())).await {
                Ok(next) => lease = next,
                Err(CommitError::Full { .. }) => break,
                Err(other) => panic!("{other}"),
            }
        }
    }
    for (name, revision) in victims {
        // Beside a write that does not fit.
        let (_, deleted) = tokio::join!(
            store.write_one(put("big", Expect::Absent, &"x".repeat(400_000))),
            store.write_one(delete(&name, revision))
        );
        deleted.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn a_step_towards_a_deletion_uses_what_is_kept_for_deletions_whatever_it_counts() {
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 20_000, full: 300_000 });
    let store = disks.open();
    let quota = store.write_one(put("quota", Expect::Absent, "1")).await.unwrap();
    let victim = store.write_one(put("victim", Expect::Absent, "there")).await.unwrap();
    for disk in 0..3 {
        disks.limit_space(disk, true);
    }
    let (_, refused) = write_until_refused(&store, "k").await;
    assert!(matches!(refused, CommitError::Full { .. }), "{refused}");
    // Also one that fits nowhere in the log but there, so that it is really used.
    let mut last = quota.revision;
    loop {
        match store.write_one(put("quota", Expect::At(last), "2")).await {
            Ok(next) => last = next.revision,
            Err(CommitError::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let count = || Write {
        key: key("quota"),
        expect: Expect::Present,
        change: Change::Amend(Amendment::new(|_| Ok::<_, std::convert::Infallible>(draft("0")))),
    };
    let mark = put("victim", Expect::At(victim.revision), &format!("{TERMINATING}now"));
    let marked = store.commit(Transaction { require: Vec::new(), writes: vec![mark, count()] }).await;
    let revision = marked.unwrap_or_else(|error| panic!("{error}"))[0].revision;
    let removal = Transaction { require: Vec::new(), writes: vec![delete("victim", revision), count()] };
    store.commit(removal).await.unwrap_or_else(|error| panic!("{error}"));
    // An addition may not use it, whatever is deleted beside it.
    let added = put("more", Expect::Absent, "1");
    let removal = delete("quota", store.snapshot().get("things", "quota").unwrap().revision);
    let refused = store.commit(Transaction { require: Vec::new(), writes: vec![removal, added] }).await;
    assert!(matches!(refused, Err(CommitError::Full { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_was_answered_is_not_lost_when_the_database_panics() {
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 20_000, full: 100_000 });
    let empty = disks.contents();
    let store = disks.open();
    // The tables fail until the log is full, so that they are opened again on the way of a write.
    disks.fail(0, usize::MAX);
    let (mut names, _) = write_until_refused(&store, "k").await;
    disks.panic_at_openings(1);
    disks.fail(0, 0);
    let panicked = async {
        for count in 0.. {
            let name = format!("during{count}");
            if store.write_one(put(&name, Expect::Absent, "1")).await.is_ok() {
                names.push(name);
            }
            if disks.openings_that_panic() == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), panicked).await.expect("the tables are opened again");
    // Both of the log's files are used again.
    let again = async {
        let mut count = 0;
        while count < 100 {
            let name = format!("after{count}");
            if store.write_one(put(&name, Expect::Absent, &"x".repeat(5000))).await.is_ok() {
                names.push(name);
                count += 1;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), again).await.expect("writes go on");
    let found = after_power_loss(&disks, &empty);
    let lost: Vec<&String> = names.iter().filter(|name| found.snapshot().get("things", name).is_none()).collect();
    assert!(lost.is_empty(), "{} of {} writes are lost, as {:?}", lost.len(), names.len(), lost.first());
}

#[tokio::test]
async fn a_failed_sync_after_rows_were_moved_aside_is_recovered_from() {
    let disks = LoggedDisks::formatted();
    let store = disks.open();
    store.write_one(put("good", Expect::Absent, "1")).await.unwrap();
    store.write_one(put("unknown", Expect::Absent, "2")).await.unwrap();
    drop(store);
    // Read by a program that knows nothing of one of them, so that its row is moved aside.
    let store = disks.open_with(|resource, name, json| match name {
        "unknown" => Err(serde::de::Error::custom("this program does not know it")),
        _ => header(resource, name, json),
    });
    assert_eq!(store.stats().quarantined, 1);
    disks.fail(1, 1);
    assert!(store.write_one(put("more", Expect::Absent, "3")).await.is_err());
    store.write_one(put("more", Expect::Absent, "3")).await.unwrap();
}

#[tokio::test]
async fn a_log_whose_header_is_damaged_is_not_taken_for_an_unused_one() {
    let disks = LoggedDisks::formatted();
    let store = disks.open();
    store.write_one(put("first", Expect::Absent, "1")).await.unwrap();
    // As after a crash: the tables lack the write.
    let [tables, mut first, second] = disks.contents();
    first[9] ^= 1;
    let error = LoggedDisks::with([tables, first, second]).try_open().err().expect("refused");
    assert!(error.to_string().contains("is damaged before byte 0"), "{error}");
}

#[tokio::test]
async fn what_an_unsynced_use_left_is_no_write_of_the_next_use() {
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 1, ..Limits::default() });
    let store = disks.open();
    // The first record of each use stands there.
    let is_first = |(disk, operation): &(usize, Operation)| {
        *disk > 0 && matches!(operation, Operation::Write { offset: 4096, bytes } if bytes.len() == 4096)
    };
    let first_records =
        || -> Vec<(usize, Operation)> { disks.operations().into_iter().filter(|entry| is_first(entry)).collect() };
    let mut count = 0;
    while first_records().len() < 6 {
        store.write_one(put(&format!("k{count}"), Expect::Absent, "1")).await.unwrap();
        count += 1;
        assert!(count < 5000, "the log's files are used in turns");
    }
    drop(store);
    // A record of each use, put behind the header of every other use of the same file: only with its own it counts.
    let records = first_records();
    let whole = disks.contents();
    let expected = disks.open().snapshot().count("things");
    for (disk, operation) in records {
        let Operation::Write { offset, bytes } = operation else { continue };
        let mut contents = whole.clone();
        let start = offset as usize;
        contents[disk][start..start + bytes.len()].copy_from_slice(&bytes);
        if let Ok(store) = LoggedDisks::with(contents).try_open() {
            assert_eq!(store.snapshot().count("things"), expected);
        }
    }
}

#[tokio::test]
async fn a_log_that_fails_on_a_full_disk_is_opened_again_once_for_all_that_wait() {
    const WAITING: usize = 100;
    let disks = LoggedDisks::formatted().limited(Limits { checkpoint: 20_000, full: 300_000 });
    let store = disks.open();
    let victim = store.write_one(put("victim", Expect::Absent, "there")).await.unwrap();
    for disk in 0..3 {
        disks.limit_space(disk, true);
    }
    let (_, refused) = write_until_refused(&store, "k").await;
    assert!(matches!(refused, CommitError::Full { .. }), "{refused}");
    // All of them wait for the committer together, behind one that it cannot decide yet.
    let ((release, held), (begun, begins)) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let hold = Change::Amend(Amendment::new(move |_| {
        begun.send(()).map_err(std::io::Error::other)?;
        held.recv().map_err(std::io::Error::other)?;
        Err(std::io::Error::other("it only waited"))
    }));
    let hold = store.write_one(Write { key: key("victim"), expect: Expect::Present, change: hold });
    let others = async {
        begins.recv().unwrap();
        for disk in [1, 2] {
            disks.fail(disk, 10 * WAITING);
        }
        let deletions = (0..WAITING).map(|_| store.write_one(delete("victim", victim.revision)));
        let release = async { release.send(()).unwrap() };
        tokio::join!(futures::future::join_all(deletions), release).0
    };
    let (held, results) = tokio::join!(hold, others);
    assert!(matches!(held, Err(CommitError::Refused { .. })), "{held:?}");
    assert!(results.iter().all(|result| matches!(result, Err(CommitError::Unavailable { .. }))));
    let failed = disks.failing_syncs(1) + disks.failing_syncs(2);
    assert!(20 * WAITING - failed < 10, "{} syncs failed", 20 * WAITING - failed);
    for disk in [1, 2] {
        disks.fail(disk, 0);
    }
    for disk in 0..3 {
        disks.limit_space(disk, false);
    }
    store.write_one(put("after", Expect::Absent, "1")).await.unwrap();
}
