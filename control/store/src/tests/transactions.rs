//! Transactions over several keys: whole or not at all, each against what the earlier ones left.

use std::sync::Arc;

use super::*;
use crate::{Amendment, CommitError, Condition, Requirement, Store, Transaction};

fn require(name: &str, condition: Condition) -> Requirement {
    Requirement { key: key(name), condition }
}

#[tokio::test]
async fn a_requirement_that_does_not_hold_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let there = store.write_one(put("there", Expect::Absent, "1")).await.unwrap();
    let terminating = store.write_one(put("going", Expect::Absent, &format!("{TERMINATING}1"))).await.unwrap();
    let refused = [
        ("there", Condition::Absent),
        ("there", Condition::At(there.revision + 1)),
        ("missing", Condition::At(1)),
        ("missing", Condition::Alive),
        ("going", Condition::Alive),
    ];
    for (name, condition) in refused {
        let writes = vec![put("a", Expect::Absent, "1"), put("b", Expect::Absent, "1")];
        let result = store.commit(Transaction { require: vec![require(name, condition)], writes }).await;
        let Err(CommitError::Conflict { key: at, current }) = result else { panic!("{condition:?} held of {name}") };
        assert_eq!(at, key(name));
        assert_eq!(current.is_some(), name != "missing");
        assert_eq!(store.snapshot().revision, terminating.revision, "{condition:?} of {name}");
    }
    let held = [
        ("there", Condition::At(there.revision)),
        ("there", Condition::Alive),
        ("missing", Condition::Absent),
        ("going", Condition::At(terminating.revision)),
    ];
    let require = held.map(|(name, condition)| require(name, condition)).to_vec();
    let made = store.commit(Transaction { require, writes: vec![put("a", Expect::Absent, "1")] }).await.unwrap();
    assert_eq!(made.len(), 1);
}

#[tokio::test]
async fn a_late_conflict_takes_back_the_writes_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let there = store.write_one(put("there", Expect::Absent, "old")).await.unwrap();
    let mut watch = store.watch("things", there.revision).unwrap();
    let transactions = vec![
        Transaction {
            require: Vec::new(),
            writes: vec![
                put("new", Expect::Absent, "1"),
                put("there", Expect::At(there.revision), "changed"),
                put("there", Expect::At(there.revision), "changed again"),
            ],
        },
        Transaction::from(put("after", Expect::Absent, "1")),
    ];
    let results = store.commit_all(transactions).await;
    assert!(matches!(&results[0], Err(CommitError::Conflict { current: Some(_), .. })));
    assert!(results[1].is_ok(), "transactions are independent of each other");
    let snapshot = store.snapshot();
    assert!(snapshot.get("things", "new").is_none());
    assert_eq!(value(&snapshot.get("things", "there").unwrap().json()), "old");
    let names: Vec<_> = watch.ready().unwrap().iter().map(|event| event.key.name.to_string()).collect();
    assert_eq!(names, ["after"]);
}

#[tokio::test]
async fn of_two_transactions_that_claim_one_key_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&dir.path().join("store")));
    let claims = (0..32).map(|claim| {
        let store = store.clone();
        tokio::spawn(async move {
            let owner = format!("owner{claim}");
            let writes = vec![put(&owner, Expect::Absent, "1"), put("address", Expect::Absent, &owner)];
            store.commit(Transaction { require: Vec::new(), writes }).await
        })
    });
    let results: Vec<_> = futures::future::join_all(claims).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let snapshot = store.snapshot();
    let owner = value(&snapshot.get("things", "address").unwrap().json());
    assert!(snapshot.get("things", &owner).is_some());
    assert_eq!(snapshot.count("things"), 2, "who lost the address was not written");
}

#[tokio::test]
async fn a_later_transaction_of_a_call_sees_what_the_earlier_ones_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let terminate = Transaction::from(put("namespace", Expect::At(1), &format!("{TERMINATING}1")));
    let create = |name: &str| Transaction {
        require: vec![require("namespace", Condition::Alive)],
        writes: vec![put(name, Expect::Absent, "1")],
    };
    let begin = Transaction::from(put("namespace", Expect::Absent, "1"));
    let results = store.commit_all(vec![create("early"), begin, create("in time"), terminate, create("late")]).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, true, true, false]);
}

#[tokio::test]
async fn a_write_that_panics_ends_neither_the_others_nor_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let first = store.write_one(put("a", Expect::Absent, "1")).await.unwrap();
    let mut broken = draft("2");
    broken.metadata_at = u32::MAX;
    let change = Change::Put(broken);
    let refused = store.write_one(Write { key: key("b"), expect: Expect::Absent, change }).await;
    assert!(matches!(refused, Err(CommitError::Unavailable { .. })), "{refused:?}");
    let second = store.write_one(put("c", Expect::Absent, "3")).await.unwrap();
    assert_eq!(second.revision, first.revision + 1);
    drop(store);
    assert_eq!(open(&path).snapshot().count("things"), 2);
}

#[tokio::test]
async fn an_amendment_sees_what_the_earlier_ones_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    store.write_one(put("counter", Expect::Absent, "")).await.unwrap();
    let count = |name: &str| {
        let made = put(name, Expect::Absent, "1");
        let change = Change::Amend(Amendment::new(|current| {
            let tail = current.draft().tail;
            let marks = tail.iter().filter(|byte| **byte == b'x').count();
            if marks >= 3 {
                return Err(std::io::Error::other(format!("there are {marks}")));
            }
            Ok(draft(&"x".repeat(marks + 1)))
        }));
        let amended = Write { key: key("counter"), expect: Expect::Present, change };
        Transaction { require: Vec::new(), writes: vec![made, amended] }
    };
    let results = store.commit_all((0..5).map(|n| count(&format!("n{n}"))).collect()).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    let Err(CommitError::Refused { reason, key: at }) = &results[4] else { panic!("{results:?}") };
    assert_eq!((reason.to_string().as_str(), at), ("there are 3", &key("counter")));
    assert!(store.snapshot().get("things", "n4").is_none(), "the whole transaction is refused");
    let absent = Write { key: key("gone"), expect: Expect::Present, change: Change::Delete };
    assert!(matches!(store.write_one(absent).await, Err(CommitError::Conflict { .. })));
}
