//! A full disk: writes say so, reads go on, and writes work again once there is space.

use std::fs;

use super::{
    logged_disks::LoggedDisks,
    small_disk::{SmallDisk, fill_to_the_brim},
    *,
};
use crate::{CommitError, Decode, Expect, Store};

#[tokio::test]
async fn a_full_disk_refuses_writes_and_answers_reads_until_there_is_space() {
    let disk = match SmallDisk::mount(8) {
        Ok(disk) => disk,
        Err(why) => {
            return crate::skipped::skipped(format_args!("a small file system cannot be mounted: {why}"));
        }
    };
    let store = open(&disk.path().join("store"));
    let first = store.write_one(put("first", Expect::Absent, "kept")).await.unwrap();
    let ballast = disk.path().join("ballast");
    fill(&ballast);

    let mut refused = None;
    let mut written = Vec::new();
    for count in 0..200 {
        match store.write_one(put(&format!("k{count}"), Expect::Absent, &unlike_others(count, 50_000))).await {
            Ok(object) => written.push((format!("k{count}"), object.revision)),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("8 MiB do not hold 10 MB");
    assert!(matches!(refused, CommitError::Full { .. }), "{refused}");
    assert!(refused.to_string().contains("no space is left"), "{refused}");
    write_until_full(&store).await;
    assert_eq!(store.snapshot().get("things", "first").map(|o| o.revision), Some(first.revision), "reads go on");

    fs::remove_file(&ballast).unwrap();
    let back = store.write_one(put("back", Expect::Absent, "again")).await.unwrap();
    let snapshot = store.snapshot();
    for (name, revision) in &written {
        assert_eq!(snapshot.get("things", name).map(|o| o.revision), Some(*revision));
    }
    assert_eq!(snapshot.revision, back.revision);
}

#[tokio::test]
async fn a_store_with_an_unreadable_object_opens_on_a_full_disk_and_loses_nothing() {
    let disk = match SmallDisk::mount(32) {
        Ok(disk) => disk,
        Err(why) => {
            return crate::skipped::skipped(format_args!("a small file system cannot be mounted: {why}"));
        }
    };
    let path = disk.path().join("store");
    let store = open(&path);
    let good = store.write_one(put("good", Expect::Absent, "1")).await.unwrap();
    drop(store);
    // To move it takes more than the file has to spare.
    let unreadable = [b"\0\0\0\0\0\0\0\x01{".to_vec(), vec![b'x'; 2 << 20]].concat();
    super::quarantine::set(&path, &[("things/bad", &unreadable)]);
    let ballast = disk.path().join("ballast");
    fill_to_the_brim(&ballast);

    let store = open(&path);
    let snapshot = store.snapshot();
    assert_eq!((snapshot.count("things"), store.stats().quarantined), (1, 1));
    assert!(snapshot.revision > good.revision, "clients that watched the lost object list again");
    write_until_full(&store).await;

    fs::remove_file(&ballast).unwrap();
    store.write_one(put("bad", Expect::Absent, "new")).await.unwrap();
    drop(store);
    assert_eq!(super::quarantine::aside(&path, "things/bad"), Some(unreadable));
    let store = open(&path);
    assert_eq!(value(&store.snapshot().get("things", "bad").unwrap().json()), "new");
}

#[tokio::test]
async fn a_deletion_on_a_full_disk_does_without_the_space_that_it_is_to_free() {
    let disk = match SmallDisk::mount(32) {
        Ok(disk) => disk,
        Err(why) => {
            return crate::skipped::skipped(format_args!("a small file system cannot be mounted: {why}"));
        }
    };
    let path = disk.path().join("store");
    let store = open(&path);
    let mut written = Vec::new();
    for n in 0..8 {
        let object = store.write_one(put(&format!("k{n}"), Expect::Absent, &"x".repeat(1 << 20))).await.unwrap();
        written.push((format!("k{n}"), object.revision));
    }
    drop(store);
    fill_to_the_brim(&disk.path().join("ballast"));
    let store = open(&path);
    write_until_full(&store).await;
    // What came into the log fits nowhere else, and goes first.
    for name in (0..).map(|count| format!("more{count}")) {
        let Some(revision) = store.snapshot().get("things", &name).map(|object| object.revision) else { break };
        store.write_one(delete(&name, revision)).await.unwrap();
    }
    for (name, revision) in written {
        store.write_one(delete(&name, revision)).await.unwrap();
    }
    let last = store.snapshot().revision;
    assert_eq!(store.snapshot().count("things"), 0);
    drop(store);
    let store = open(&path);
    assert_eq!((store.snapshot().revision, store.snapshot().count("things")), (last, 0));
    assert!(store.watch("things", last).is_ok());
}

/// A program whose headers take more than the objects.
struct LargeHeaders;

impl Decode for LargeHeaders {
    fn decode(&self, resource: &str, name: &str, json: &[u8]) -> Result<Draft, serde_json::Error> {
        let header = HeaderParts { name: &"x".repeat(1 << 20), ..HeaderParts::default() }.pack();
        Ok(Draft { header, ..super::header(resource, name, json)? })
    }

    fn mark(&self, _: &str) -> Option<u64> {
        Some(1)
    }
}

#[tokio::test]
async fn headers_that_do_not_fit_hold_up_no_checkpoint() {
    let disks = LoggedDisks::formatted();
    let store = disks.open();
    for n in 0..8 {
        store.write_one(put(&format!("k{n}"), Expect::Absent, "small")).await.unwrap();
    }
    drop(store);
    disks.leave_space(0, 4 << 20);
    let store = disks.open_decoding(LargeHeaders);
    let deleted = store.write_one(delete("k0", 1)).await.unwrap();
    drop(store);
    let [tables, _, _] = disks.contents();
    let store = LoggedDisks::with([tables, Vec::new(), Vec::new()]).open();
    assert_eq!((store.snapshot().revision, store.snapshot().count("things")), (deleted.revision, 7));
}

/// Adds `more0` and so on until the disk is full: the log has some space of its own.
async fn write_until_full(store: &Embedded) {
    for count in 0..100 {
        match store.write_one(put(&format!("more{count}"), Expect::Absent, &"x".repeat(500_000))).await {
            Ok(_) => {}
            Err(CommitError::Full { .. }) => return,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the disk is not full");
}

/// Leaves 2 MiB or so.
fn fill(ballast: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(ballast).unwrap();
    let block = [1u8; 64 << 10];
    for _ in 0..(4 << 20) / block.len() {
        if file.write_all(&block).is_err() {
            break;
        }
    }
}
