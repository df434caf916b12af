//! One write as the file keeps it: what became of which key, as bytes that nobody has to understand.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::packed_row;
use crate::{
    Decode, Event, EventType, Object,
    seal::{Binding, Form, SealError, Sealer},
};

/// A write to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// `resource/name`: the key in the table of objects.
    pub key: Box<str>,
    /// How many bytes of `key` are the resource.
    resource_len: usize,
    /// What the write did.
    pub event_type: EventType,
    /// The revision of the write.
    pub revision: u64,
    /// The text after the write; empty for a deletion, and where it is sealed and was not opened.
    pub json: RowText,
    /// The value after the write as the file gets it, where it is sealed.
    pub sealed: Option<Bytes>,
    /// Revision and text before the write, as far as known. A write-ahead log does not keep it.
    pub previous: Option<(u64, RowText)>,
}

/// The text of an object.
#[derive(Clone, Debug)]
pub enum RowText {
    /// As it was read.
    Read(Bytes),
    /// The text of an object in memory, which may take less of it there.
    Of(Arc<Object>),
}

impl RowText {
    /// The text.
    pub fn get(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Read(text) => Cow::Borrowed(text),
            Self::Of(object) => object.json(),
        }
    }

    /// The object in memory that it is of.
    pub fn object(&self) -> Option<&Object> {
        match self {
            Self::Read(_) => None,
            Self::Of(object) => Some(object),
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Read(text) => text.len(),
            Self::Of(object) => object.json_len(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Read(text) => out.extend_from_slice(text),
            Self::Of(object) => object.write_json(out),
        }
    }
}

impl Default for RowText {
    fn default() -> Self {
        Self::Read(Bytes::new())
    }
}

impl PartialEq for RowText {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for RowText {}

impl RowChange {
    /// What `event` did.
    pub fn of(event: &Event) -> Self {
        let deleted = event.event_type == EventType::Deleted;
        Self {
            key: format!("{}/{}", event.key.resource, event.key.name).into(),
            resource_len: event.key.resource.len(),
            event_type: event.event_type,
            revision: event.object.revision,
            json: if deleted { RowText::default() } else { RowText::Of(event.object.clone()) },
            sealed: None,
            previous: event.previous.as_ref().map(|previous| (previous.revision, RowText::Of(previous.clone()))),
        }
    }

    /// What `event` did, with its value sealed where that of its resource is to be.
    pub fn sealed(event: &Event, sealer: &Sealer, decode: Option<&dyn Decode>) -> Result<Self, SealError> {
        let mut change = Self::of(event);
        let resource = change.resource();
        if change.event_type == EventType::Deleted || !sealer.seals(resource) {
            return Ok(change);
        }
        let Some(seal) = sealer.get() else { return Ok(change) };
        let mark = decode.and_then(|decode| decode.mark(resource));
        let row = packed_row::whole_row(&event.object, mark);
        if let Some((key, sealed)) = change.binding(Form::Row).seal(seal, &row)? {
            event.object.set_seal_key(key);
            change.sealed = Some(sealed.into());
        }
        Ok(change)
    }

    /// Reads the text of a change whose value is sealed. Where it does not open, the change is
    /// [locked](Self::is_locked).
    pub fn open(&mut self, sealer: &Sealer) {
        let Some(sealed) = &self.sealed else { return };
        let opened = self.binding(Form::Row).open(sealer.get(), sealed);
        if let Ok(opened) = opened
            && let Ok((_, json)) = packed_row::text(&opened.value, |_| None)
        {
            self.json = RowText::Read(json.into());
        }
    }

    /// Whether its text is not known, since its value is sealed.
    pub fn is_locked(&self) -> bool {
        self.sealed.is_some() && self.json.len() == 0
    }

    /// Where its sealed parts belong.
    pub fn binding(&self, form: Form) -> Binding<'_> {
        Binding { key: &self.key, revision: self.revision, form }
    }

    /// How many bytes its value has.
    pub fn len(&self) -> usize {
        self.sealed.as_ref().map_or_else(|| self.json.len(), Bytes::len)
    }

    /// `pods`, `deployments.apps`
    pub fn resource(&self) -> &str {
        self.key.get(..self.resource_len).unwrap_or_default()
    }

    /// `namespace/name`, or `name`
    pub fn name(&self) -> &str {
        self.key.get(self.resource_len.saturating_add(1)..).unwrap_or_default()
    }

    /// The value in the table of objects: revision, then text, or what is sealed. Nothing for a deletion.
    pub fn value(&self) -> Option<Vec<u8>> {
        if let Some(sealed) = &self.sealed {
            return Some(packed_row::sealed_row(&self.key, self.revision, sealed));
        }
        (self.event_type != EventType::Deleted).then(|| {
            let mut value = Vec::with_capacity(self.json.len().saturating_add(size_of::<u64>()));
            value.extend_from_slice(&self.revision.to_be_bytes());
            self.json.write(&mut value);
            value
        })
    }

    /// Adds the change to a record of the write-ahead log: kind (1 byte), revision (8), length of the resource (2), of
    /// the key (4) and of the text (4), all big endian, then key and text. The kind has [`SEALED`] where what is sealed
    /// stands for the text.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(code(self.event_type) | if self.sealed.is_some() { SEALED } else { 0 });
        out.extend_from_slice(&self.revision.to_be_bytes());
        out.extend_from_slice(&(self.resource_len as u16).to_be_bytes());
        out.extend_from_slice(&(self.key.len() as u32).to_be_bytes());
        out.extend_from_slice(&(self.len() as u32).to_be_bytes());
        out.extend_from_slice(self.key.as_bytes());
        match &self.sealed {
            Some(sealed) => out.extend_from_slice(sealed),
            None => self.json.write(out),
        }
    }

    /// Takes a change from the beginning of `rest`. Nothing where it holds no whole change.
    pub fn read(rest: &mut Bytes) -> Option<Self> {
        let mut head: &[u8] = rest;
        let whole = head.len();
        let kind = *head.split_off_first()?;
        let (event_type, is_sealed) = (event_type(kind & !SEALED)?, kind & SEALED != 0);
        let revision = u64::from_be_bytes(*number(&mut head)?);
        let resource_len = usize::from(u16::from_be_bytes(*number(&mut head)?));
        let key_len = u32::from_be_bytes(*number(&mut head)?) as usize;
        let json_len = u32::from_be_bytes(*number(&mut head)?) as usize;
        let key: Box<str> = std::str::from_utf8(head.split_off(..key_len)?).ok()?.into();
        if key.as_bytes().get(resource_len) != Some(&b'/') || head.len() < json_len {
            return None;
        }
        // What stands before the text was read above, so nothing here exceeds the length.
        drop(rest.split_to(whole.saturating_sub(head.len())));
        let text = rest.split_to(json_len);
        let (json, sealed) = match is_sealed {
            true => (RowText::default(), Some(text)),
            false => (RowText::Read(text), None),
        };
        Some(Self { key, resource_len, event_type, revision, json, sealed, previous: None })
    }
}

/// A bit of the kind: the text is sealed. A program that does not know it refuses such a log.
pub const SEALED: u8 = 0x80;

/// How the kind of a change is written.
pub fn code(event_type: EventType) -> u8 {
    match event_type {
        EventType::Added => 0,
        EventType::Modified => 1,
        EventType::Deleted => 2,
    }
}

/// The kind of change that [`code`] wrote.
pub fn event_type(code: u8) -> Option<EventType> {
    match code {
        0 => Some(EventType::Added),
        1 => Some(EventType::Modified),
        2 => Some(EventType::Deleted),
        _ => None,
    }
}

/// Takes a number of `N` bytes from the beginning of `rest`.
pub fn number<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    rest.split_off(..N)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_change_is_read_as_it_was_written(
            name in "[a-z/]{0,20}", code in 0..3_u8, revision: u64, json: Vec<u8>, after: Vec<u8>, is_sealed: bool
        ) {
            let key: Box<str> = format!("pods/{name}").into();
            let event_type = event_type(code).expect("a code of a kind");
            let (json, sealed) = match is_sealed {
                true => (RowText::default(), Some(json.into())),
                false => (RowText::Read(json.into()), None),
            };
            let change = RowChange { key, resource_len: 4, event_type, revision, json, sealed, previous: None };
            let mut bytes = Vec::new();
            change.write(&mut bytes);
            bytes.extend_from_slice(&after);
            let mut rest = Bytes::from(bytes);
            prop_assert_eq!((change.resource(), change.name()), ("pods", &*name));
            prop_assert_eq!(RowChange::read(&mut rest), Some(change));
            prop_assert_eq!(&rest[..], &after[..]);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes: Vec<u8>) {
            let mut rest = Bytes::from(bytes);
            while RowChange::read(&mut rest).is_some() {}
        }
    }
}
