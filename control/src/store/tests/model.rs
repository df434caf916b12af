//! Any sequence of writes does to the store what it does to a map, and a reopened store holds the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::{Store, WriteError};

#[derive(Clone, Debug)]
enum Step {
    /// Put a value under a key, expecting what is there, or something else.
    Put {
        key: u8,
        value: u8,
        right: bool,
    },
    Delete {
        key: u8,
        right: bool,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8u8, any::<u8>(), prop::bool::weighted(0.8)).prop_map(|(key, value, right)| Step::Put { key, value, right }),
        3 => (0..8u8, prop::bool::weighted(0.8)).prop_map(|(key, right)| Step::Delete { key, right }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_with_revisions(batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(batches));
    }
}

async fn run(batches: Vec<Vec<Step>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut store = open(&path);
    let mut model: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut revision = 0;
    for batch in batches {
        let mut writes = Vec::new();
        let mut expected = Vec::new();
        for step in batch {
            match step {
                Step::Put { key, value, right } => {
                    let name = format!("k{key}");
                    let there = model.get(&name).map(|(revision, _)| *revision);
                    let expect = match (there, right) {
                        (Some(revision), true) => Expect::At(revision),
                        (None, true) => Expect::Absent,
                        (Some(_), false) => Expect::Absent,
                        (None, false) => Expect::At(1),
                    };
                    let value = format!("v{value}");
                    writes.push(put(&name, expect, &value));
                    if right {
                        revision += 1;
                        model.insert(name, (revision, value));
                    }
                    expected.push(right);
                }
                Step::Delete { key, right } => {
                    let name = format!("k{key}");
                    let there = model.get(&name).map(|(revision, _)| *revision);
                    let made = right && there.is_some();
                    writes.push(delete(&name, there.filter(|_| right).unwrap_or(u64::MAX)));
                    if made {
                        revision += 1;
                        model.remove(&name);
                    }
                    expected.push(made);
                }
                Step::Reopen => {
                    drop(store);
                    store = open(&path);
                    // The model's batch goes on against the state so far.
                    break;
                }
            }
        }
        for (result, made) in store.write(writes).await.into_iter().zip(expected) {
            match result {
                Ok(_) => assert!(made),
                Err(WriteError::Conflict { .. }) => assert!(!made),
                Err(other) => panic!("{other}"),
            }
        }
        let snapshot = store.snapshot();
        assert_eq!(snapshot.revision, revision);
        let held: BTreeMap<String, (u64, String)> = snapshot
            .list("things", "", None)
            .map(|(name, object)| (name.to_string(), (object.revision, value(object.json()))))
            .collect();
        assert_eq!(held, model);
    }
}
