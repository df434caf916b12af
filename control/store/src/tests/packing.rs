//! Rows are packed on a disk that is full or loses power: nothing is lost, and neither is the watch history.

use super::{
    logged_disks::{Contents, LoggedDisks, Unsynced, crashed},
    packed_rows::{Program, rows_of},
    upgrade::{Told, events_after, texts, to_layout_2, with_changes},
    *,
};
use crate::Store;

/// What must come through: the objects' texts, the changes after a revision, and that revision.
struct Held {
    texts: Vec<(String, u64, String)>,
    events: Vec<Told>,
    since: u64,
}

/// Disks with a store of layout 2.
async fn layout_2() -> (Contents, Held) {
    let disks = LoggedDisks::formatted();
    let store = disks.open_decoding(Program::new(1));
    let since = with_changes(&store, 24).await;
    let held = Held { texts: texts(&store), events: events_after(&store, since), since };
    drop(store);
    to_layout_2(&disks.database(), &held.texts);
    (disks.contents(), held)
}

impl Held {
    /// The store has all of it, and may have had further changes.
    fn check(&self, store: &Embedded, what: &str) {
        let found = texts(store);
        assert!(self.texts.iter().all(|text| found.contains(text)), "{what}: objects are lost");
        let events = events_after(store, self.since);
        assert!(events.starts_with(&self.events), "{what}: the history is lost");
    }
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_moment_costs_packing_neither_objects_nor_history() {
    let (contents, held) = layout_2().await;
    for writes in 0.. {
        let what = format!("full after {writes} writes");
        let disks = LoggedDisks::with(contents.clone());
        let store = disks.open_decoding(Program::new(1));
        disks.fill_once_after(0, writes);
        store.write_one(put("more", Expect::Absent, "1")).await.unwrap();
        drop(store);
        if disks.is_to_be_filled(0) {
            assert!(writes > 4, "{writes}");
            break;
        }
        let store = disks.open_decoding(Program::new(1));
        held.check(&store, &what);
        assert!(store.snapshot().get("things", "more").is_some(), "{what}");
        drop(store);
        assert!(rows_of(&disks.database()).iter().all(|(_, row)| row[8] == 0xf5), "{what}: rows are packed later");
    }
}

#[tokio::test]
async fn rows_that_do_not_fit_are_packed_once_there_is_space() {
    let (contents, held) = layout_2().await;
    let disks = LoggedDisks::with(contents);
    let store = disks.open_decoding(Program::new(1));
    disks.limit_space(0, true);
    store.write_one(put("more", Expect::Absent, "1")).await.unwrap();
    drop(store);
    disks.limit_space(0, false);
    let store = disks.open_decoding(Program::new(1));
    let found = texts(&store);
    assert!(held.texts.iter().all(|text| found.contains(text)));
    drop(store);
    assert!(rows_of(&disks.database()).iter().all(|(_, row)| row[8] == 0xf5));
}

#[tokio::test]
async fn a_loss_of_power_costs_packing_neither_objects_nor_history() {
    let (contents, held) = layout_2().await;
    let disks = LoggedDisks::with(contents.clone());
    drop(disks.open_decoding(Program::new(1)));
    let operations = disks.operations();
    assert!(operations.len() > 8, "{} operations", operations.len());
    for at in 0..=operations.len() {
        let bits = 0x9e37_79b9_7f4a_7c15_u64.rotate_left(at as u32);
        let unsynced = [Unsynced::Lost, Unsynced::Some(bits), Unsynced::Torn][at % 3];
        let what = format!("power is lost after {at} of {} operations, {unsynced:?}", operations.len());
        let disks = LoggedDisks::with(crashed(&contents, &operations, at, unsynced));
        let store = disks.open_decoding(Program::new(1));
        held.check(&store, &what);
        drop(store);
        assert!(rows_of(&disks.database()).iter().all(|(_, row)| row[8] == 0xf5), "{what}: rows are packed later");
    }
}
