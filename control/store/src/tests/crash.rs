//! kill -9 in the middle of concurrent transactions: what was answered is there, and nothing is half there.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
};

use super::*;
use crate::{Expect, Store, Transaction};

const PATH: &str = "FAIRLEAD_STORE_CRASH_TEST";
const WRITERS: usize = 8;
const ROUNDS: usize = 10;

#[test]
fn no_answered_write_is_lost_by_kill_9() {
    if let Ok(path) = std::env::var(PATH) {
        return write_until_killed(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::crash::no_answered_write_is_lost_by_kill_9", "--nocapture"])
            .env(PATH, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 50 + 37 * round;
        let mut seen = 0;
        while seen < wanted {
            let line = lines.next().expect("the writer writes until it is killed").unwrap();
            seen += usize::from(note(&line, &mut acknowledged));
        }
        child.kill().unwrap();
        // What was answered before the kill may still stand in the pipe; the last line may be cut.
        for line in lines.map_while(Result::ok).filter(|line| line.ends_with('.')) {
            note(&line, &mut acknowledged);
        }
        child.wait().unwrap();
        let store = open(&path);
        let snapshot = store.snapshot();
        for (name, revision) in &acknowledged {
            let object = snapshot.get("things", name).unwrap_or_else(|| panic!("{name} is lost"));
            assert!(object.revision >= *revision, "{name} was answered at {revision}, and is at {}", object.revision);
            assert_eq!(value(&object.json()).len(), 100, "{name} is cut");
            let twin = snapshot.get("things", &twin(name)).unwrap_or_else(|| panic!("the twin of {name} is lost"));
            assert_eq!(value(&twin.json()), value(&object.json()), "half of a transaction of {name} is there");
        }
        let newest = snapshot.list("things", "", None).map(|(_, object)| object.revision).max();
        assert_eq!(newest, Some(snapshot.revision));
    }
    assert!(acknowledged.len() >= WRITERS);
}

fn note(line: &str, acknowledged: &mut BTreeMap<String, u64>) -> bool {
    let mut words = line.trim_end_matches('.').split_whitespace();
    let (Some("wrote"), Some(name), Some(revision)) = (words.next(), words.next(), words.next()) else { return false };
    let revision: u64 = revision.parse().unwrap();
    let known = acknowledged.entry(name.to_owned()).or_default();
    *known = (*known).max(revision);
    true
}

/// What is written in one transaction with `name`.
fn twin(name: &str) -> String {
    format!("twin-of-{name}")
}

/// The child: writes from several tasks, and says what was answered.
fn write_until_killed(path: &Path) {
    let store = Arc::new(open(path));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let name = format!("w{writer}");
                for count in 0.. {
                    let snapshot = store.snapshot();
                    let write = |name: &str| {
                        let there = snapshot.get("things", name).map(|object| object.revision);
                        put(name, there.map_or(Expect::Absent, Expect::At), &format!("{count:0100}"))
                    };
                    let writes = vec![write(&name), write(&twin(&name))];
                    let written = store.commit(Transaction { require: Vec::new(), writes }).await.unwrap();
                    println!("wrote {name} {}.", written[0].revision);
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}
