//! The store against a model, against kill -9, loss of power, a full disk and damage; its transactions, indexes and
//! watches.

mod crash;
mod damaged_bases;
mod dense_copy;
mod full_disk;
mod indexes;
mod log_files;
mod logged_disks;
mod model;
mod packed_rows;
mod packing;
mod power_loss;
mod quarantine;
mod sealed_damage;
mod sealed_history;
mod sealing;
mod small_disk;
mod toy_seal;
mod transactions;
mod upgrade;
mod watches;

use std::{borrow::Cow, path::Path};

use super::{Change, Draft, Embedded, Expect, HeaderParts, Key, Write};

/// What the value of an object starts with whose deletion was asked for.
const TERMINATING: &str = "terminating ";

/// A draft whose text is `{"metadata":{"resourceVersion":"…"},"value":VALUE}`.
pub(crate) fn draft(value: &str) -> Draft {
    Draft {
        head: br#"{"metadata":{"resourceVersion":""#.to_vec(),
        tail: format!("\"}},\"value\":{value:?}}}").into_bytes(),
        managed_len: 0,
        metadata_at: 12,
        header: HeaderParts {
            name: value,
            deleting: value.starts_with(TERMINATING),
            fields: value.split_whitespace().filter_map(field).collect(),
            indexed: &["node".into()],
            ..HeaderParts::default()
        }
        .pack(),
    }
}

/// The field `node` of an object whose value has the word `@NODE`; it is indexed.
fn field(word: &str) -> Option<(Cow<'static, str>, String)> {
    Some(("node".into(), word.strip_prefix('@')?.into()))
}

/// The value in a text that [`draft`] made.
fn value(json: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(json).unwrap();
    value["value"].as_str().unwrap().to_owned()
}

/// A text of so many bytes that is not encoded against another one.
fn unlike_others(seed: u64, len: usize) -> String {
    let next = |state: &u64| Some(state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f));
    let numbers = std::iter::successors(next(&seed), next).map(|number| format!("{:08x}", number >> 32));
    numbers.take(len.div_ceil(8)).collect()
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

/// Reads an object back.
fn header(_: &str, _: &str, json: &[u8]) -> Result<Draft, serde_json::Error> {
    serde_json::from_slice::<serde_json::Value>(json)?;
    Ok(draft(&value(json)))
}

fn open(path: &Path) -> Embedded {
    Embedded::open(path, header).unwrap()
}
