//! The store against a model, against kill -9, against a full disk; its transactions and its watches.

mod crash;
mod full_disk;
mod model;
mod transactions;
mod watches;

use std::path::Path;

use super::{Change, Draft, Embedded, Expect, Header, Key, Write};

/// What the value of an object starts with whose deletion was asked for.
const TERMINATING: &str = "terminating ";

/// A draft whose text is `{"metadata":{"resourceVersion":"…"},"value":VALUE}`.
fn draft(value: &str) -> Draft {
    Draft {
        head: br#"{"metadata":{"resourceVersion":""#.to_vec(),
        tail: format!("\"}},\"value\":{value:?}}}").into_bytes(),
        metadata_at: 12,
        header: Header { name: value.into(), deleting: value.starts_with(TERMINATING), ..Header::default() },
    }
}

/// The value in a text that [`draft`] made.
fn value(json: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(json).unwrap();
    value["value"].as_str().unwrap().to_owned()
}

fn key(name: &str) -> Key {
    Key { resource: "things".into(), name: name.into() }
}

fn put(name: &str, expect: Expect, value: &str) -> Write {
    Write { key: key(name), expect, change: Change::Put(draft(value)) }
}

fn delete(name: &str, revision: u64) -> Write {
    Write { key: key(name), expect: Expect::At(revision), change: Change::Delete }
}

fn open(path: &Path) -> Embedded {
    Embedded::open(path, &|_, _, json| Ok(draft(&value(json)))).unwrap()
}
