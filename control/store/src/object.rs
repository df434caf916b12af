//! An object as the store keeps it: JSON bytes with the revision set in, and a header for what is asked without
//! parsing, in one piece of memory.
//!
//! The bytes are laid out once, at the write, as a whole watch frame `{"type":"ADDED","object":…}` so that lists, gets
//! and all watchers share them. Every object ends its metadata with the resource version:
//! `{"apiVersion":…,"kind":…,"metadata":{…,"managedFields":[…],"resourceVersion":"7"},…}`, and so the metadata is a
//! slice, too. Who owns the fields stands as text in it, so that a write can read the object without it.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use arc_swap::ArcSwapWeak;
use bytes::Bytes;

use super::{
    EventType, Header, PackedHeader, SharedFrame,
    base::Base,
    delta,
    packed::{Layout, Packed},
    references::{Encoded, References},
    seal::SealKey,
};

/// The index that every object has without a term in its [`Header`]: its name.
pub const NAME_INDEX: &str = "metadata.name";
/// The index of all objects' namespaces, for watches alone: lists go by the key, which begins with the namespace.
pub const NAMESPACE_INDEX: &str = "metadata.namespace";
/// The index of all objects' keys, for watches alone: a watch of one object by its name does not wake for those of the
/// same name in other namespaces.
pub const KEY_INDEX: &str = "metadata.namespace/metadata.name";

/// An object to be written: its text around the place where the revision will stand, with its header.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The JSON text up to and with `"resourceVersion":"`.
    pub head: Vec<u8>,
    /// The JSON text from the quote after the resource version.
    pub tail: Vec<u8>,
    /// Offset of the opening brace of `metadata` in `head`.
    pub metadata_at: u32,
    /// How many bytes of `head` before `"resourceVersion":"` are `"managedFields":[…],`.
    pub managed_len: u32,
    /// What is asked of the object without parsing it.
    pub header: PackedHeader,
}

impl Draft {
    /// Where the parts of the text are.
    pub(crate) fn layout(&self) -> Layout {
        let head_len = self.head.len() as u32;
        Layout { head_len, metadata_at: self.metadata_at, managed_len: self.managed_len }
    }
}

/// A stored object. Cheap to share; nothing of what it says changes.
#[derive(Debug)]
pub struct Object {
    /// The revision of the write that made it.
    pub revision: u64,
    /// The text that its frame is encoded against, if it is.
    base: Option<Arc<Base>>,
    /// The header, and behind it the frame, or how it differs from the base: see `delta.rs`.
    data: Box<[u8]>,
    header_len: u32,
    frame_len: u32,
    json_at: u32,
    metadata_at: u32,
    managed_len: u32,
    revision_at: u32,
    revision_len: u32,
    event_type: EventType,
    /// The key that its value is sealed under in the file.
    seal_key: AtomicU16,
    /// The frame as one piece, while watchers share it.
    shared: ArcSwapWeak<SharedFrame>,
    /// The same in the second encoding.
    binary: ArcSwapWeak<SharedFrame>,
}

/// What ends a frame.
pub(crate) const FRAME_END: &[u8] = b"}\n";
/// What follows the digits of the resource version: it ends the metadata.
pub(crate) const METADATA_END: &[u8] = b"\"}";

/// What stands before the text of `metadata.managedFields`.
pub const MANAGED_FIELDS: &str = "\"managedFields\":";
/// What stands before the resource version.
pub const RESOURCE_VERSION: &str = "\"resourceVersion\":\"";

impl Object {
    /// Lays out `draft` as of `revision`.
    pub fn new(draft: Draft, revision: u64, event: EventType) -> Self {
        Self::laid_out(draft, revision, event, |_| None)
    }

    /// The same for an object of `resource` that is to be kept: as a small difference from a similar one, if there is.
    pub fn kept(
        draft: Draft,
        revision: u64,
        event: EventType,
        (resource, references): (&Arc<str>, &mut References),
    ) -> Self {
        Self::laid_out(draft, revision, event, |frame| encode_against(references, resource, frame))
    }

    /// The object that was packed, with this header. Nothing where its text has another layout.
    pub(crate) fn unpacked(packed: Packed<'_>, layout: Layout, header: Header<'_>) -> Option<Self> {
        if !packed.has(layout) {
            return None;
        }
        let data = [header.bytes(), packed.frame].concat();
        let revision = (packed.revision, packed.revision.checked_ilog10().unwrap_or_default().saturating_add(1));
        let lens = (header.bytes().len(), packed.frame_len as usize);
        Some(Self::of_parts(packed.base.cloned(), data, lens, layout, revision, packed.event_type))
    }

    fn laid_out(draft: Draft, revision: u64, event: EventType, encode: impl FnOnce(&[u8]) -> Option<Encoded>) -> Self {
        let digits = revision.to_string();
        let frame = [event.frame_start(), &draft.head, digits.as_bytes(), &draft.tail, FRAME_END].concat();
        let encoded = encode(&frame);
        let data = [draft.header.bytes(), encoded.as_ref().map_or(&frame, |encoded| &encoded.delta)].concat();
        let lens = (draft.header.bytes().len(), frame.len());
        let base = encoded.map(|encoded| encoded.base);
        Self::of_parts(base, data, lens, draft.layout(), (revision, digits.len() as u32), event)
    }

    fn of_parts(
        base: Option<Arc<Base>>,
        data: Vec<u8>,
        (header_len, frame_len): (usize, usize),
        layout: Layout,
        (revision, revision_len): (u64, u32),
        event_type: EventType,
    ) -> Self {
        let json_at = event_type.frame_start().len() as u32;
        Self {
            revision,
            base,
            data: data.into(),
            header_len: header_len as u32,
            frame_len: frame_len as u32,
            json_at,
            metadata_at: json_at + layout.metadata_at,
            managed_len: layout.managed_len,
            revision_at: json_at + layout.head_len,
            revision_len,
            event_type,
            seal_key: AtomicU16::default(),
            shared: ArcSwapWeak::default(),
            binary: ArcSwapWeak::default(),
        }
    }

    /// The object as it is kept.
    pub(crate) fn packed(&self) -> Packed<'_> {
        Packed {
            revision: self.revision,
            event_type: self.event_type,
            base: self.base.as_ref(),
            frame: &self.data[self.header_len as usize..],
            frame_len: self.frame_len,
        }
    }

    /// Where the parts of its text are.
    pub(crate) fn layout(&self) -> Layout {
        Layout {
            head_len: self.revision_at - self.json_at,
            metadata_at: self.metadata_at - self.json_at,
            managed_len: self.managed_len,
        }
    }

    /// What is asked of it without parsing it.
    pub fn header(&self) -> Header<'_> {
        Header::of(&self.data[..self.header_len as usize])
    }

    /// What the write that made the object did.
    pub fn event_type(&self) -> EventType {
        self.event_type
    }

    /// The key that its value is sealed under in the file.
    pub fn seal_key(&self) -> SealKey {
        SealKey::new(self.seal_key.load(Ordering::Relaxed))
    }

    /// Takes note of the key that its value is sealed under.
    pub(crate) fn set_seal_key(&self, key: SealKey) {
        self.seal_key.store(key.number(), Ordering::Relaxed);
    }

    /// The second encoding of its frame, if somebody made it.
    pub fn binary(&self) -> Option<Arc<SharedFrame>> {
        let frame = self.binary.load().upgrade()?;
        frame.used();
        Some(frame)
    }

    /// Takes note of the second encoding of its frame.
    pub fn set_binary(&self, frame: &Arc<SharedFrame>) {
        self.binary.store(Arc::downgrade(frame));
    }

    /// The same object, removed at `revision`.
    pub fn deleted_at(&self, revision: u64) -> Self {
        Self::new(self.draft(), revision, EventType::Deleted)
    }

    /// The object's text and header without its revision.
    pub fn draft(&self) -> Draft {
        Draft {
            head: self.text(self.json_at as usize..self.revision_at as usize).into_owned(),
            tail: self.text(self.revision_end()..self.json_end()).into_owned(),
            metadata_at: self.metadata_at - self.json_at,
            managed_len: self.managed_len,
            header: self.header().to_packed(),
        }
    }

    /// Whether the object would be the same as `draft`, but for its revision.
    pub fn equals(&self, draft: &Draft) -> bool {
        let json = self.json();
        let (head, tail) = (self.revision_at - self.json_at, self.revision_end() - self.json_at as usize);
        json[..head as usize] == draft.head[..] && json[tail..] == draft.tail[..]
    }

    /// The object's JSON text.
    pub fn json(&self) -> Cow<'_, [u8]> {
        self.text(self.json_at as usize..self.json_end())
    }

    /// Adds the object's JSON text to `out`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write(self.json_at as usize..self.json_end(), out);
    }

    /// How many bytes the JSON text has.
    pub fn json_len(&self) -> usize {
        self.json_end() - self.json_at as usize
    }

    /// The JSON text of the object without `metadata.managedFields`.
    pub fn json_without_managers(&self) -> Cow<'_, [u8]> {
        if self.managed_len == 0 {
            return self.json();
        }
        let mut out = Vec::with_capacity(self.json_len());
        self.write_json_without_managers(&mut out);
        Cow::Owned(out)
    }

    /// Adds the JSON text of the object without `metadata.managedFields` to `out`.
    pub fn write_json_without_managers(&self, out: &mut Vec<u8>) {
        self.write_around_managers(self.json_at as usize..self.json_end(), out);
    }

    /// The JSON text of `metadata.managedFields`; empty where the object has none.
    pub fn managers(&self) -> Cow<'_, str> {
        let field = self.managers_at();
        let (start, end) = (field.start + MANAGED_FIELDS.len(), field.end.saturating_sub(1));
        match self.text(start.min(end)..end) {
            Cow::Borrowed(text) => std::str::from_utf8(text).unwrap_or_default().into(),
            Cow::Owned(text) => String::from_utf8(text).unwrap_or_default().into(),
        }
    }

    /// Where `"managedFields":[…],` stands.
    fn managers_at(&self) -> Range<usize> {
        let end = self.revision_at as usize - RESOURCE_VERSION.len();
        end - self.managed_len as usize..end
    }

    /// Adds the JSON text of `metadata` to `out`.
    pub fn write_metadata(&self, out: &mut Vec<u8>) {
        // The revision is followed by its closing quote and the brace that ends the metadata.
        self.write(self.metadata_at as usize..self.revision_end() + METADATA_END.len(), out);
    }

    /// The same without `managedFields`.
    pub fn write_metadata_without_managers(&self, out: &mut Vec<u8>) {
        self.write_around_managers(self.metadata_at as usize..self.revision_end() + METADATA_END.len(), out);
    }

    fn write_around_managers(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let managers = self.managers_at();
        self.write(range.start..managers.start, out);
        self.write(managers.end..range.end, out);
    }

    /// The watch frame of the write that made this object: `{"type":…,"object":…}` and a newline. All who ask for it
    /// share its memory for a while.
    pub fn frame(&self) -> Bytes {
        if let Some(shared) = self.shared.load().upgrade() {
            shared.used();
            return shared.frame().clone();
        }
        let frame = Bytes::from(self.text(0..self.frame_len as usize).into_owned());
        self.shared.store(Arc::downgrade(&SharedFrame::keep(frame.clone(), 0)));
        frame
    }

    /// Adds the frame to `out`, by way of the memory that all share: for one who reads it soon after others, or before
    /// them. That costs a fifth of [`Self::write_frame`] where the frame is encoded against another.
    pub fn write_shared_frame(&self, out: &mut Vec<u8>) {
        match self.shared.load().upgrade() {
            Some(shared) => {
                shared.used();
                out.extend_from_slice(shared.frame());
            }
            None if self.base.is_some() => out.extend_from_slice(&self.frame()),
            None => self.write_frame(out),
        }
    }

    /// Adds the frame to `out`. Nobody shares its memory.
    pub fn write_frame(&self, out: &mut Vec<u8>) {
        self.write(0..self.frame_len as usize, out);
    }

    /// Bytes of text and header. As a rule it holds a tenth of that; at most 2.5 times as much, where no other object
    /// shares its base.
    pub fn size(&self) -> usize {
        (self.header_len + self.frame_len) as usize
    }

    /// Bytes that it takes in memory, but for its base, which others share.
    pub fn held_bytes(&self) -> usize {
        self.data.len().saturating_add(size_of::<Self>())
    }

    fn revision_end(&self) -> usize {
        (self.revision_at + self.revision_len) as usize
    }

    fn json_end(&self) -> usize {
        self.frame_len as usize - FRAME_END.len()
    }

    /// A part of the frame.
    fn text(&self, range: Range<usize>) -> Cow<'_, [u8]> {
        if self.base.is_none() {
            return Cow::Borrowed(&self.data[self.header_len as usize..][range]);
        }
        let mut out = Vec::with_capacity(range.len());
        self.write(range, &mut out);
        Cow::Owned(out)
    }

    fn write(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let data = &self.data[self.header_len as usize..];
        match &self.base {
            None => out.extend_from_slice(&data[range]),
            Some(base) => {
                delta::decode(base.text(), data, range, out).expect("the delta was read when it was made");
            }
        }
    }
}

/// A frame encoded against another one, if it can be read again.
fn encode_against(references: &mut References, resource: &Arc<str>, frame: &[u8]) -> Option<Encoded> {
    let encoded = references.encode(resource, frame)?;
    let mut again = Vec::with_capacity(frame.len());
    delta::decode(encoded.base.text(), &encoded.delta, 0..frame.len(), &mut again)?;
    (again == frame).then_some(encoded)
}
