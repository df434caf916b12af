//! Any sequence of transactions does to the store what it does to a map, and a reopened store holds the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{CommitError, Condition, Requirement, Store, Transaction};

/// A transaction over keys `k0` to `k7`, right or wrong about what is there.
#[derive(Clone, Debug)]
struct Step {
    require: Vec<(u8, Demand)>,
    writes: Vec<Op>,
}

#[derive(Clone, Copy, Debug)]
enum Demand {
    Absent,
    /// At its revision, or at another one.
    At {
        right: bool,
    },
    Alive,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Puts a value, expecting what is there, or something else.
    Put {
        key: u8,
        value: u8,
        right: bool,
        deleting: bool,
    },
    Delete {
        key: u8,
        right: bool,
    },
}

#[derive(Clone, Debug)]
enum Action {
    /// Some transactions in one call.
    Commit(Vec<Step>),
    Reopen,
}

fn demand() -> impl Strategy<Value = Demand> {
    prop_oneof![
        Just(Demand::Absent),
        prop::bool::weighted(0.8).prop_map(|right| Demand::At { right }),
        Just(Demand::Alive)
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let right = || prop::bool::weighted(0.9);
    prop_oneof![
        6 => (0..8u8, any::<u8>(), right(), prop::bool::weighted(0.2))
            .prop_map(|(key, value, right, deleting)| Op::Put { key, value, right, deleting }),
        3 => (0..8u8, right()).prop_map(|(key, right)| Op::Delete { key, right }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let step = (prop::collection::vec((0..8u8, demand()), 0..2), prop::collection::vec(op(), 0..4))
        .prop_map(|(require, writes)| Step { require, writes });
    prop_oneof![
        6 => prop::collection::vec(step, 1..6).prop_map(Action::Commit),
        1 => Just(Action::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_with_revisions(actions in prop::collection::vec(action(), 1..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(actions));
    }
}

async fn run(actions: Vec<Action>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut store = open(&path);
    let mut model = Model::default();
    for action in actions {
        match action {
            Action::Reopen => {
                drop(store);
                store = open(&path);
            }
            Action::Commit(steps) => {
                let mut watch = store.watch("things", model.revision).unwrap();
                let before = model.revision;
                let (transactions, expected): (Vec<_>, Vec<_>) =
                    steps.iter().map(|step| model.transaction(step)).unzip();
                for (result, expected) in store.commit_all(transactions).await.into_iter().zip(expected) {
                    match result {
                        Ok(objects) => assert_eq!(
                            objects.iter().map(|object| object.revision).collect::<Vec<_>>(),
                            expected.expect("a transaction was committed that demanded what does not hold")
                        ),
                        Err(CommitError::Conflict { .. }) => assert_eq!(expected, None),
                        Err(other) => panic!("{other}"),
                    }
                }
                let seen: Vec<u64> = watch.ready().unwrap().iter().map(|event| event.object.revision).collect();
                assert_eq!(seen, (before + 1..=model.revision).collect::<Vec<_>>(), "only what was committed is seen");
            }
        }
        let snapshot = store.snapshot();
        assert_eq!(snapshot.revision, model.revision);
        let held: BTreeMap<String, (u64, String)> = snapshot
            .list("things", "", None)
            .map(|(name, object)| (name.to_string(), (object.revision, value(&object.json()))))
            .collect();
        assert_eq!(held, model.objects);
    }
}

/// What the store should hold: revision and value by name.
#[derive(Clone, Default)]
struct Model {
    revision: u64,
    objects: BTreeMap<String, (u64, String)>,
}

impl Model {
    /// Commits a step. Answers with the transaction for the store, and the revisions that it writes, if it should.
    fn transaction(&mut self, step: &Step) -> (Transaction, Option<Vec<u64>>) {
        let mut after = self.clone();
        let mut holds = true;
        let mut transaction = Transaction::default();
        let mut revisions = Vec::new();
        for (key, demand) in &step.require {
            let name = format!("k{key}");
            let there = self.objects.get(&name);
            let (condition, met) = match demand {
                Demand::Absent => (Condition::Absent, there.is_none()),
                Demand::Alive => (Condition::Alive, there.is_some_and(|(_, value)| !value.starts_with(TERMINATING))),
                Demand::At { right } => match there.filter(|_| *right) {
                    Some((revision, _)) => (Condition::At(*revision), true),
                    None => (Condition::At(u64::MAX), false),
                },
            };
            holds &= met;
            transaction.require.push(Requirement { key: super::key(&name), condition });
        }
        for op in &step.writes {
            let (Op::Put { key, right, .. } | Op::Delete { key, right }) = op;
            let name = format!("k{key}");
            let there = after.objects.get(&name).map(|(revision, _)| *revision);
            after.revision += 1;
            revisions.push(after.revision);
            match op {
                Op::Put { value, deleting, .. } => {
                    let expect = match (there, right) {
                        (Some(revision), true) => Expect::At(revision),
                        (None, true) | (Some(_), false) => Expect::Absent,
                        (None, false) => Expect::At(1),
                    };
                    let value = format!("{}v{value}", if *deleting { TERMINATING } else { "" });
                    transaction.writes.push(put(&name, expect, &value));
                    holds &= right;
                    after.objects.insert(name, (after.revision, value));
                }
                Op::Delete { .. } => {
                    transaction.writes.push(delete(&name, there.filter(|_| *right).unwrap_or(u64::MAX)));
                    holds &= *right && there.is_some();
                    after.objects.remove(&name);
                }
            }
        }
        if holds {
            *self = after;
        }
        (transaction, holds.then_some(revisions))
    }
}
