//! Lists and watches by an indexed value touch the objects of that value alone.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{Event, EventType, NAME_INDEX, Object, Snapshot, Store, Topic};

fn names(snapshot: &Snapshot, term: (&str, &str), prefix: &str, after: Option<&str>) -> Vec<String> {
    snapshot.list_by("things", term, prefix, after).map(|(name, _)| name.to_string()).collect()
}

#[tokio::test]
async fn of_a_thousand_watches_by_node_one_wakes_for_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let mut watches: Vec<_> =
        (0..1000).map(|node| store.watch_by("things", ("node", &format!("n{node}")), 0).unwrap()).collect();
    assert_eq!(store.stats().watches, 1000);
    store.write_one(put("a", Expect::Absent, "@n7")).await.unwrap();
    assert_eq!(store.stats().watch_wakes, 1);
    assert_eq!(watches[7].next().await.unwrap().len(), 1);
    for (node, watch) in watches.iter_mut().enumerate() {
        assert!(watch.ready().unwrap().is_empty(), "n{node}");
    }
}

#[tokio::test]
async fn an_object_that_leaves_a_value_is_seen_by_the_watches_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let first = store.write_one(put("a", Expect::Absent, "@n1")).await.unwrap();
    let mut old = store.watch_by("things", ("node", "n1"), first.revision).unwrap();
    let mut new = store.watch_by("things", ("node", "n2"), first.revision).unwrap();
    let mut other = store.watch_by("things", ("node", "n3"), first.revision).unwrap();
    let second = store.write_one(put("a", Expect::At(first.revision), "@n2")).await.unwrap();
    store.write_one(delete("a", second.revision)).await.unwrap();
    let types = |events: Vec<Arc<Event>>| events.iter().map(|event| event.event_type).collect::<Vec<_>>();
    assert_eq!(types(old.ready().unwrap()), [EventType::Modified]);
    assert_eq!(types(new.ready().unwrap()), [EventType::Modified, EventType::Deleted]);
    assert_eq!(types(other.ready().unwrap()), []);
}

#[tokio::test]
async fn a_watch_by_value_begins_at_its_revision_and_expires_as_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let mut revisions = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let node = if name < "c" { "@n1" } else { "@n2" };
        revisions.push(store.write_one(put(name, Expect::Absent, node)).await.unwrap().revision);
    }
    let seen = |after| {
        let mut watch = store.watch_by("things", ("node", "n1"), after)?;
        Ok::<_, crate::Expired>(watch.ready()?.len())
    };
    // Readers of one feed begin at different revisions, the later one first.
    let late = store.watch_by("things", ("node", "n1"), revisions[0]).unwrap();
    assert_eq!(seen(0).unwrap(), 2);
    assert_eq!(seen(revisions[0]).unwrap(), 1);
    drop(late);
    store.compact(revisions[2]);
    assert!(seen(revisions[0]).is_err());
    assert_eq!(seen(revisions[2]).unwrap(), 0);
}

#[test]
fn a_reader_that_begins_ahead_of_the_topic_does_not_make_others_see_twice() {
    let topic = Topic::new(0);
    let event = |revision| {
        let object = Object::new(draft("@n1"), revision, EventType::Added);
        Arc::new(Event { event_type: EventType::Added, key: key("a"), object: Arc::new(object), previous: None })
    };
    topic.publish(vec![event(1)]);
    // The state is published before the events: a reader may know revision 3 already.
    let mut ahead = topic.subscribe_by("node", "n1", 3).unwrap();
    topic.publish(vec![event(2), event(3), event(4)]);
    let mut behind = topic.subscribe_by("node", "n1", 0).unwrap();
    let revisions = |events: Vec<Arc<Event>>| events.iter().map(|event| event.object.revision).collect::<Vec<_>>();
    assert_eq!(revisions(behind.ready().unwrap()), [1, 2, 3, 4]);
    assert_eq!(revisions(ahead.ready().unwrap()), [4]);
}

#[tokio::test]
async fn a_feed_forgets_with_its_topic_and_ends_with_its_last_reader() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let mut slow = store.watch_by("things", ("node", "n1"), 0).unwrap();
    let first = store.write_one(put("a", Expect::Absent, "@n1")).await.unwrap();
    let late = std::time::Instant::now() + std::time::Duration::from_secs(301);
    assert_eq!(store.trim(late), first.size(), "what feeds share is not counted twice");
    assert!(slow.ready().is_err(), "what it has not seen is forgotten");
    drop(slow);
    store.trim(late);
    assert_eq!(store.stats().watches, 0);
}

#[tokio::test]
async fn names_are_an_index_of_every_resource() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    for name in ["n1/a", "n1/b", "n1-x/a", "n2/b", "n3/a"] {
        store.write_one(put(name, Expect::Absent, "1")).await.unwrap();
    }
    let snapshot = store.snapshot();
    let by_name = |name, prefix, after| names(&snapshot, (NAME_INDEX, name), prefix, after);
    assert_eq!(by_name("a", "", None), ["n1-x/a", "n1/a", "n3/a"]);
    assert_eq!(by_name("a", "", Some("n1/a")), ["n3/a"]);
    assert_eq!(by_name("b", "n2/", None), ["n2/b"]);
    assert!(by_name("b", "n3/", None).is_empty());
    assert!(by_name("c", "", None).is_empty());
    let clusters = store.write_one(Write {
        key: Key { resource: "wholes".into(), name: "one".into() },
        expect: Expect::Absent,
        change: Change::Put(draft("one")),
    });
    clusters.await.unwrap();
    let snapshot = store.snapshot();
    assert_eq!(snapshot.list_by("wholes", (NAME_INDEX, "one"), "", None).count(), 1);
    assert_eq!(snapshot.list_by("wholes", (NAME_INDEX, "two"), "", None).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Writes of (key, node or deletion); after each, every index list is the filtered list, and each watch saw its
    /// part.
    #[test]
    fn an_index_is_a_filter(writes in prop::collection::vec((0..6u8, prop::option::of(0..3u8)), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            let store = open(&path);
            let mut model: BTreeMap<String, (u64, u8)> = BTreeMap::new();
            let mut watches: Vec<_> =
                (0..3).map(|node| store.watch_by("things", ("node", &format!("n{node}")), 0).unwrap()).collect();
            for (key, node) in writes {
                let name = format!("ns{}/k{key}", key % 2);
                let there = model.get(&name).copied();
                let write = match (node, there) {
                    (Some(node), there) => {
                        put(&name, there.map_or(Expect::Absent, |(at, _)| Expect::At(at)), &format!("@n{node}"))
                    }
                    (None, Some((at, _))) => delete(&name, at),
                    (None, None) => continue,
                };
                let revision = store.write_one(write).await.unwrap().revision;
                match node {
                    Some(node) => drop(model.insert(name, (revision, node))),
                    None => drop(model.remove(&name)),
                }
                for (value, watch) in watches.iter_mut().enumerate() {
                    let concerned = [node, there.map(|(_, node)| node)].contains(&Some(value as u8));
                    assert_eq!(watch.ready().unwrap().len(), usize::from(concerned));
                }
            }
            check(&store.snapshot(), &model);
            drop(store);
            check(&open(&path).snapshot(), &model);
        });
    }
}

fn check(snapshot: &Snapshot, model: &BTreeMap<String, (u64, u8)>) {
    for node in 0..3u8 {
        for prefix in ["", "ns0/", "ns1/"] {
            let value = format!("n{node}");
            let expected: Vec<_> = model
                .iter()
                .filter(|(name, (_, at))| name.starts_with(prefix) && *at == node)
                .map(|(name, _)| name.clone())
                .collect();
            assert_eq!(names(snapshot, ("node", &value), prefix, None), expected);
            if let Some(first) = expected.first() {
                assert_eq!(names(snapshot, ("node", &value), prefix, Some(first)), expected[1..]);
            }
        }
    }
}
