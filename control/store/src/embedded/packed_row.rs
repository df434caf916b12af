//! A row of the table of objects, in the form in which the object is kept in memory: an opening copies it and has the
//! object, without decoding its text or parsing it, and a text like others takes a tenth of its length.
//!
//! ```text
//! revision, 0xf5, event type, mark, base (number, checksum), layout, lengths of frame and header,
//! header, frame, checksum
//! ```
//!
//! All numbers are big endian, checksums are CRC-32. The frame is as it stands or how it differs from its base, a row
//! of the table of bases (`stored_base.rs`); number 0 says that it has none.
//!
//! Where the object's resource is encrypted, the file has such a row without a base, sealed (`seal.rs`) behind the
//! revision and 0xf6, and before a checksum of the key and all that. So damage, which makes one object unavailable, is
//! told from a key that is missing or another one, which stops the start. The row keeps the header that it was written
//! with: a start of another program parses the text, until the object is written again.
//!
//! The header is made from the text by the program, and another program may make another one: the row names its program
//! ([`Decode::mark`]). A text whose header another program made is parsed, as are rows of JSON: the revision, and then
//! the text. Programs before layout 3 wrote such rows, and a start makes them of what the log has.

use std::{collections::HashMap, sync::Arc};

use super::row::{code, event_type, number};
use crate::{
    Decode, Draft, EventType, Header, Object, RESOURCE_VERSION,
    base::Base,
    packed::{Layout, Packed},
    references::References,
    seal::{self, Binding, Form, Seal, SealKey, UnsealError},
};

/// After the revision: no JSON text has it, for it is not valid UTF-8.
const MARKER: u8 = 0xf5;
/// In its place: the rest is sealed.
const SEALED: u8 = 0xf6;
/// Revision, marker and event type, and the mark.
const BASE_AT: usize = 8 + 2 + 8;
/// What a row has beside header and frame.
const FIXED: usize = BASE_AT + 8 + 6 * 4 + 4;

/// The bases that the file has, by their numbers.
pub type Bases = HashMap<u64, Arc<Base>>;

/// Why a row of the file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("the key names no resource")]
    NoResource,
    #[error("it is cut")]
    Cut,
    #[error("it is damaged")]
    Damaged,
    #[error("its base {number} is missing or damaged")]
    Base { number: u64 },
    #[error(transparent)]
    Sealed(#[from] UnsealError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// The row of an object whose program has this mark, and whose base has this number.
pub fn row(object: &Object, mark: Option<u64>, base: Option<u64>) -> Vec<u8> {
    row_of(object, object.packed(), mark, base)
}

/// The row of an object, with its frame as it stands: nothing else is needed to read it.
pub fn whole_row(object: &Object, mark: Option<u64>) -> Vec<u8> {
    let packed = object.packed();
    match packed.base {
        None => row_of(object, packed, mark, None),
        Some(_) => {
            let mut frame = Vec::with_capacity(packed.frame_len as usize);
            object.write_frame(&mut frame);
            row_of(object, Packed { base: None, frame: &frame, ..packed }, mark, None)
        }
    }
}

/// The row of the object with this key at a revision, of what is sealed.
pub fn sealed_row(key: &str, revision: u64, sealed: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(sealed.len().saturating_add(13));
    row.extend_from_slice(&revision.to_be_bytes());
    row.push(SEALED);
    row.extend_from_slice(sealed);
    let sum = sealed_sum(key, &row);
    row.extend_from_slice(&sum.to_be_bytes());
    row
}

/// Whether a row says that it is sealed, be it damaged or not.
pub fn is_sealed(row: &[u8]) -> bool {
    row.get(8) == Some(&SEALED)
}

/// The revision of a sealed row, and what is sealed, as they were written under this key; nothing of a damaged row.
pub fn sealed_of<'a>(key: &str, row: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let (row, sum) = row.split_last_chunk::<4>()?;
    if sealed_sum(key, row) != u32::from_be_bytes(*sum) {
        return None;
    }
    let (revision, rest) = row.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*revision), rest.strip_prefix(&[SEALED])?))
}

/// The label of the key that a row names, if it is sealed and not damaged.
pub fn label_of<'a>(key: &str, row: &'a [u8]) -> Option<&'a str> {
    seal::label(sealed_of(key, row)?.1)
}

fn sealed_sum(key: &str, row: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key.as_bytes());
    sum.update(row);
    sum.finalize()
}

fn row_of(object: &Object, packed: Packed<'_>, mark: Option<u64>, base: Option<u64>) -> Vec<u8> {
    let layout = object.layout();
    // Without a mark, nobody could tell whether the header is right.
    let header = mark.map(|_| object.header().bytes()).unwrap_or_default();
    let mut row = Vec::with_capacity(FIXED.saturating_add(header.len()).saturating_add(packed.frame.len()));
    row.extend_from_slice(&packed.revision.to_be_bytes());
    row.extend_from_slice(&[MARKER, code(packed.event_type)]);
    row.extend_from_slice(&mark.unwrap_or_default().to_be_bytes());
    row.extend_from_slice(&base.unwrap_or_default().to_be_bytes());
    let sum = packed.base.map(|base| base.sum()).unwrap_or_default();
    let numbers = [layout.head_len, layout.metadata_at, layout.managed_len, packed.frame_len, header.len() as u32];
    for number in [sum].into_iter().chain(numbers) {
        row.extend_from_slice(&number.to_be_bytes());
    }
    row.extend_from_slice(header);
    row.extend_from_slice(packed.frame);
    row.extend_from_slice(&crc32fast::hash(&row).to_be_bytes());
    row
}

/// The number of the base that a row names, be the row damaged or not.
pub fn base_of(row: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*row.get(BASE_AT..)?.first_chunk()?);
    (row.get(8) == Some(&MARKER) && number > 0).then_some(number)
}

/// The revision and the text of a row of JSON; nothing of any other.
pub fn json_row(row: &[u8]) -> Option<(u64, &[u8])> {
    let (revision, json) = row.split_first_chunk::<8>()?;
    (!matches!(json.first(), Some(&MARKER | &SEALED))).then(|| (u64::from_be_bytes(*revision), json))
}

/// The revision and the JSON text of a row that is not sealed; `base` finds its base.
pub fn text(row: &[u8], base: impl FnOnce(u64) -> Option<Arc<Base>>) -> Result<(u64, Vec<u8>), RowError> {
    let (revision, json) = row.split_first_chunk::<8>().ok_or(RowError::Cut)?;
    if json.first() != Some(&MARKER) {
        return Ok((u64::from_be_bytes(*revision), json.to_vec()));
    }
    let row = PackedRow::read(row).ok_or(RowError::Damaged)?;
    let base = row.base(base)?;
    Ok((row.revision, row.packed(base.as_ref()).json().ok_or(RowError::Damaged)?))
}

/// What a row says.
struct PackedRow<'a> {
    revision: u64,
    event_type: EventType,
    mark: u64,
    /// Number and checksum.
    base: (u64, u32),
    layout: Layout,
    frame_len: u32,
    header: &'a [u8],
    frame: &'a [u8],
}

impl<'a> PackedRow<'a> {
    fn read(row: &'a [u8]) -> Option<Self> {
        let (row, sum) = row.split_last_chunk::<4>()?;
        if crc32fast::hash(row) != u32::from_be_bytes(*sum) {
            return None;
        }
        let mut rest = row;
        let revision = u64::from_be_bytes(*number(&mut rest)?);
        let [marker, event] = *number(&mut rest)?;
        let [mark, base] = [number(&mut rest)?, number(&mut rest)?].map(|number| u64::from_be_bytes(*number));
        let mut short = || Some(u32::from_be_bytes(*number(&mut rest)?));
        let base = (base, short()?);
        let layout = Layout { head_len: short()?, metadata_at: short()?, managed_len: short()? };
        let (frame_len, header_len) = (short()?, short()?);
        let header = rest.split_off(..header_len as usize)?;
        let event_type = event_type(event)?;
        (marker == MARKER).then_some(Self { revision, event_type, mark, base, layout, frame_len, header, frame: rest })
    }

    /// Finds its base, which must be the one that it was encoded against.
    fn base(&self, find: impl FnOnce(u64) -> Option<Arc<Base>>) -> Result<Option<Arc<Base>>, RowError> {
        let (number, sum) = self.base;
        if number == 0 {
            return Ok(None);
        }
        let base = find(number).filter(|base| base.sum() == sum);
        base.map(Some).ok_or(RowError::Base { number })
    }

    fn packed<'b>(&'b self, base: Option<&'b Arc<Base>>) -> Packed<'b> {
        let Self { revision, event_type, frame_len, frame, .. } = *self;
        Packed { revision, event_type, base, frame, frame_len }
    }

    /// The header, if a program with this mark made it.
    fn header(&self, mark: Option<u64>) -> Option<Header<'a>> {
        let header = Header::of(self.header);
        (mark == Some(self.mark) && header.is_whole()).then_some(header)
    }
}

/// What rows of a file are read with.
#[derive(Clone, Copy)]
pub struct RowDecoder<'a> {
    /// Reads texts.
    pub decode: &'a dyn Decode,
    /// The bases of the file.
    pub bases: &'a Bases,
    /// Opens what is sealed.
    pub seal: Option<&'a dyn Seal>,
}

/// Makes objects of the rows of the file.
pub struct ObjectMaker<'a> {
    with: RowDecoder<'a>,
    resource: Arc<str>,
    mark: Option<u64>,
    /// Whether rows of the resource may stand as they are.
    reads_plain: bool,
    references: References,
}

/// An object that was made of a row.
pub struct Made {
    /// Its resource.
    pub resource: Arc<str>,
    /// Its key in it.
    pub name: Arc<str>,
    /// The object.
    pub object: Arc<Object>,
    /// The file has no row for it that the next opening could take as it is, and could have.
    pub lacks_row: bool,
}

impl<'a> ObjectMaker<'a> {
    /// Of rows that can be read with these.
    pub fn new(with: RowDecoder<'a>) -> Self {
        Self { with, resource: Arc::default(), mark: None, reads_plain: true, references: References::default() }
    }

    /// The object of a row with the key `resource/name`.
    pub fn make(&mut self, key: &str, row: &[u8]) -> Result<Made, RowError> {
        let (resource, name) = key.split_once('/').ok_or(RowError::NoResource)?;
        if *self.resource != *resource {
            self.resource = resource.into();
            self.mark = self.with.decode.mark(resource);
            self.reads_plain = self.with.seal.is_none_or(|seal| seal.reads_plain(resource));
        }
        let mut seal_key = SealKey::PLAIN;
        let (revision, json) = row.split_first_chunk::<8>().ok_or(RowError::Cut)?;
        let (object, lacks_row) = match json.first() {
            Some(&SEALED) => {
                let (revision, sealed) = sealed_of(key, row).ok_or(RowError::Damaged)?;
                let opened = Binding { key, revision, form: Form::Row }.open(self.with.seal, sealed)?;
                seal_key = opened.key;
                let row = PackedRow::read(&opened.value).filter(|row| row.revision == revision);
                let (object, _) = self.unpack(name, row.ok_or(RowError::Damaged)?)?;
                // In memory it is packed as others are.
                let event = object.event_type();
                let kept = Object::kept(object.draft(), revision, event, (&self.resource, &mut self.references));
                (kept, false)
            }
            Some(&MARKER) => self.unpack(name, PackedRow::read(row).ok_or(RowError::Damaged)?)?,
            _ => {
                let object = self.parse(name, (u64::from_be_bytes(*revision), json), EventType::Added)?;
                // An older program's text may have been brought into a newer form, which the file has once it is
                // written again.
                let is_same = *object.json() == *json;
                (object, is_same)
            }
        };
        // Only of what can be read: damage makes any row look like one that is not sealed.
        if seal_key == SealKey::PLAIN && !self.reads_plain {
            return Err(UnsealError::Plain.into());
        }
        object.set_seal_key(seal_key);
        let (resource, name) = (self.resource.clone(), Arc::from(name));
        Ok(Made { resource, name, object: Arc::new(object), lacks_row })
    }

    fn unpack(&mut self, name: &str, row: PackedRow<'_>) -> Result<(Object, bool), RowError> {
        let base = row.base(|number| self.with.bases.get(&number).cloned())?;
        let packed = row.packed(base.as_ref());
        let known = row.header(self.mark).and_then(|header| Object::unpacked(packed, row.layout, header));
        if let Some(object) = known {
            return Ok((object, false));
        }
        let json = packed.json().ok_or(RowError::Damaged)?;
        let draft = self.with.decode.decode(&self.resource, name, &json)?;
        if is_text_of(&draft, row.revision, &json)
            && let Some(object) = Object::unpacked(packed, draft.layout(), draft.header.get())
        {
            return Ok((object, self.mark.is_some()));
        }
        Ok((Object::kept(draft, row.revision, row.event_type, (&self.resource, &mut self.references)), false))
    }

    fn parse(&mut self, name: &str, (revision, json): (u64, &[u8]), event: EventType) -> Result<Object, RowError> {
        let draft = self.with.decode.decode(&self.resource, name, json)?;
        Ok(Object::kept(draft, revision, event, (&self.resource, &mut self.references)))
    }
}

/// Whether a draft has this text when it is laid out at a revision.
fn is_text_of(draft: &Draft, revision: u64, json: &[u8]) -> bool {
    let tail = json.strip_prefix(&*draft.head).and_then(|rest| rest.strip_prefix(revision.to_string().as_bytes()));
    draft.head.ends_with(RESOURCE_VERSION.as_bytes()) && tail == Some(&draft.tail)
}
