//! One change in the stored history: what became of which key, and how the text before differs from the text after.
//!
//! It is decided here how a change is written and what of it is known when it is read; which of them there are is
//! decided by `stored_history.rs`.

use std::sync::Arc;

use super::row::{RowChange, RowText, SEALED, code, event_type, number};
use crate::{
    EventType,
    seal::{Binding, Form, SealError, Sealer},
};

/// A bit of a record's kind: what was before is not known.
const UNKNOWN: u8 = 0x40;

/// What a key held before a change.
#[derive(Clone, Debug)]
pub enum Previous {
    /// Nothing: the change is an addition.
    None,
    /// An object: its revision and text.
    Text(u64, RowText),
    /// An object, of which nothing else is known.
    Unknown,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub revision: u64,
    pub event_type: EventType,
    pub name: Arc<str>,
    /// Of a change that is no addition.
    pub before: Option<Before>,
}

/// The text before a change, encoded against the text after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    pub revision: u64,
    /// Length of the text after.
    after: u32,
    /// So many bytes at its beginning and at its end are the same before.
    same: (u32, u32),
    /// What stood between them.
    middle: Box<[u8]>,
}

/// One change as it stands in a row.
pub struct StoredRecord<'a> {
    pub event_type: EventType,
    pub revision: u64,
    pub resource: &'a str,
    pub name: &'a str,
    pub before: StoredBefore<'a>,
}

/// What it says of what the key held before.
pub enum StoredBefore<'a> {
    /// Nothing was there.
    None,
    /// A text, as it is.
    Text(Before),
    /// A text, sealed.
    Sealed(&'a [u8]),
    /// Nothing.
    Unknown,
}

/// Adds a record. Answers whether it has a text that stands as it is.
///
/// # Errors
/// The text before cannot be sealed. It was left out.
pub fn write_record(
    change: &RowChange,
    previous: &Previous,
    sealer: &Sealer,
    out: &mut Vec<u8>,
) -> Result<bool, SealError> {
    let before = match previous {
        Previous::None => StoredBefore::None,
        // What it would be told by.
        _ if change.is_locked() => StoredBefore::Unknown,
        Previous::Unknown => StoredBefore::Unknown,
        // A deleted object is not there any more to tell its last text by: its change has no text.
        Previous::Text(revision, text) => StoredBefore::Text(Before::of(*revision, &text.get(), &change.json.get())),
    };
    let sealed = match (&before, sealer.get()) {
        (StoredBefore::Text(before), Some(seal)) => change.binding(Form::Before).seal(seal, &before.bytes()),
        _ => Ok(None),
    };
    let (before, result) = match (&sealed, before) {
        (Ok(None), before) => {
            let is_text = matches!(before, StoredBefore::Text(_));
            (before, Ok(is_text))
        }
        (Ok(Some((_, sealed))), _) => (StoredBefore::Sealed(sealed), Ok(false)),
        (Err(error), _) => (StoredBefore::Unknown, Err(error.clone())),
    };
    let (resource, name) = (change.resource(), change.name());
    let RowChange { event_type, revision, .. } = *change;
    StoredRecord { event_type, revision, resource, name, before }.write(out);
    result
}

impl<'a> StoredRecord<'a> {
    /// The kind has [`SEALED`] where the text before is sealed: then its length (4 bytes) stands before it. It has
    /// [`UNKNOWN`] where that text is not known.
    pub fn write(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        let how = match self.before {
            StoredBefore::None | StoredBefore::Text(_) => 0,
            StoredBefore::Sealed(_) => SEALED,
            StoredBefore::Unknown => UNKNOWN,
        };
        out.push(code(self.event_type) | how);
        out.extend_from_slice(&self.revision.to_be_bytes());
        text(out, self.resource);
        text(out, self.name);
        match &self.before {
            StoredBefore::None | StoredBefore::Unknown => {}
            StoredBefore::Text(before) => out.extend_from_slice(&before.bytes()),
            StoredBefore::Sealed(sealed) => {
                out.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
                out.extend_from_slice(sealed);
            }
        }
    }

    /// Takes a record from `row`.
    pub fn read(row: &mut &'a [u8]) -> Option<Self> {
        let kind = *row.split_off_first()?;
        let event_type = event_type(kind & !(SEALED | UNKNOWN))?;
        let revision = u64::from_be_bytes(*number(row)?);
        let (resource, name) = (text(row)?, text(row)?);
        let before = match (event_type, kind & SEALED != 0, kind & UNKNOWN != 0) {
            (_, true, true) => return None,
            (_, false, true) => StoredBefore::Unknown,
            (EventType::Added, false, false) => StoredBefore::None,
            (EventType::Modified | EventType::Deleted, false, false) => StoredBefore::Text(Before::read(row)?),
            (_, true, false) => {
                let length = u32::from_be_bytes(*number(row)?);
                StoredBefore::Sealed(row.split_off(..length as usize)?)
            }
        };
        Some(Self { event_type, revision, resource, name, before })
    }

    /// The record, if all of it is known.
    pub fn known(self, sealer: &Sealer) -> Option<Record> {
        let Self { event_type, revision, resource, name, before } = self;
        let before = match before {
            StoredBefore::None => None,
            // Whoever could write the file could put it there.
            StoredBefore::Text(_) if sealer.seals(resource) => return None,
            StoredBefore::Text(before) => Some(before),
            StoredBefore::Sealed(sealed) => {
                let key = format!("{resource}/{name}");
                let opened = Binding { key: &key, revision, form: Form::Before }.open(sealer.get(), sealed).ok()?;
                Some(Before::read(&mut &opened.value[..])?)
            }
            StoredBefore::Unknown => return None,
        };
        Some(Record { revision, event_type, name: name.into(), before })
    }
}

impl Before {
    fn of(revision: u64, before: &[u8], after: &[u8]) -> Self {
        let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
        let tails = before[head..].iter().rev().zip(after[head..].iter().rev());
        let tail = tails.take_while(|(a, b)| a == b).count();
        let middle = before[head..before.len() - tail].into();
        Self { revision, after: after.len() as u32, same: (head as u32, tail as u32), middle }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.middle.len().saturating_add(24));
        out.extend_from_slice(&self.revision.to_be_bytes());
        for number in [self.after, self.same.0, self.same.1, self.middle.len() as u32] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.middle);
        out
    }

    fn read(row: &mut &[u8]) -> Option<Self> {
        let revision = u64::from_be_bytes(*number(row)?);
        let [after, head, tail, length] =
            [number(row)?, number(row)?, number(row)?, number(row)?].map(|n| u32::from_be_bytes(*n));
        let middle = row.split_off(..length as usize)?.into();
        Some(Self { revision, after, same: (head, tail), middle })
    }

    /// The text before, if `after` is the text that it was encoded against.
    pub fn text(&self, after: &[u8]) -> Option<Vec<u8>> {
        if after.len() != self.after as usize {
            return None;
        }
        let head = after.get(..self.same.0 as usize)?;
        let tail = after.get(after.len().checked_sub(self.same.1 as usize)?..)?;
        Some([head, &self.middle, tail].concat())
    }
}

fn text<'a>(row: &mut &'a [u8]) -> Option<&'a str> {
    let length = u16::from_be_bytes(*number(row)?);
    std::str::from_utf8(row.split_off(..usize::from(length))?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_encoded_against_the_one_after(
            head in "[ab]{0,6}", tail in "[ab]{0,6}", before in "[ab]{0,6}", after in "[ab]{0,6}"
        ) {
            let [before, after] = [before, after].map(|middle| format!("{head}{middle}{tail}").into_bytes());
            let encoded = Before::of(7, &before, &after);
            prop_assert_eq!(encoded.text(&after), Some(before));
            prop_assert_eq!(encoded.text(&[&after[..], b"x"].concat()), None);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut row = bytes.as_slice();
            while StoredRecord::read(&mut row).is_some() {}
        }
    }
}
