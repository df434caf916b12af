//! An object as the store keeps it: JSON bytes with the revision set in, and a header for what is asked without
//! parsing.
//!
//! The bytes are laid out once, at the write, as a whole watch frame `{"type":"ADDED","object":…}` so that lists, gets
//! and all watchers share them. Every object ends its metadata with the resource version:
//! `{"apiVersion":…,"kind":…,"metadata":{…,"managedFields":[…],"resourceVersion":"7"},…}`, and so the metadata is a
//! slice, too. Who owns the fields stands as text in it, so that a write can read the object without it.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};

use super::{BinaryFrame, EventType};

/// What is known of an object without parsing it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Empty for cluster-scoped objects.
    pub namespace: Box<str>,
    /// `metadata.name`
    pub name: Box<str>,
    /// `metadata.uid`
    pub uid: Box<str>,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// `metadata.ownerReferences`
    pub owners: Box<[OwnerReference]>,
    /// Fields that a field selector may name, beside name and namespace.
    pub fields: BTreeMap<Cow<'static, str>, String>,
    /// The values by which [`super::Snapshot::list_by`] and [`super::Store::watch_by`] find the object.
    pub indexes: Box<[Term]>,
    /// Cells of the Table form.
    pub cells: Box<[StoredCell]>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.finalizers`
    pub finalizers: Box<[Box<str>]>,
}

/// A value of an object under an index: the name of a selectable field and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// `spec.nodeName`
    pub index: Cow<'static, str>,
    /// Empty where the object has no such field.
    pub value: Arc<str>,
}

/// The index that every object has without a [`Term`]: its name.
pub const NAME_INDEX: &str = "metadata.name";
/// The index of all objects' namespaces, for watches alone: lists go by the key, which begins with the namespace.
pub const NAMESPACE_INDEX: &str = "metadata.namespace";
/// The index of all objects' keys, for watches alone: a watch of one object by its name does not wake for those of the
/// same name in other namespaces.
pub const KEY_INDEX: &str = "metadata.namespace/metadata.name";

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerReference {
    /// UID of the owner.
    pub uid: Box<str>,
    /// `ReplicaSet`
    pub kind: Box<str>,
    /// Name of the owner.
    pub name: Box<str>,
    /// Whether the owner is the object's controller: there is one at most.
    pub controller: bool,
}

/// A part of an object's Table row, prepared at the write.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredCell {
    /// JSON text, as it is.
    Text(Box<str>),
    /// The time since this moment (Unix seconds), inside a JSON string: it is filled in when the row is read.
    Age(i64),
}

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
    /// What is asked of the object without parsing it. Boxed, so that a draft moves cheaply.
    pub header: Box<Header>,
}

/// A stored object. Cheap to share; nothing of what it says changes.
#[derive(Debug)]
pub struct Object {
    /// The revision of the write that made it.
    pub revision: u64,
    /// What is asked of it without parsing it.
    pub header: Header,
    frame: Bytes,
    json_at: u32,
    metadata_at: u32,
    managed_len: u32,
    revision_at: u32,
    revision_len: u32,
    event_type: EventType,
    /// See [`BinaryFrame`].
    binary: ArcSwapOption<BinaryFrame>,
}

const FRAME_END: &[u8] = b"}\n";

/// What stands before the text of `metadata.managedFields`.
pub const MANAGED_FIELDS: &str = "\"managedFields\":";
/// What stands before the resource version.
pub const RESOURCE_VERSION: &str = "\"resourceVersion\":\"";

impl Object {
    /// Lays out `draft` as of `revision`.
    pub fn new(draft: Draft, revision: u64, event: EventType) -> Self {
        let digits = revision.to_string();
        let start = event.frame_start();
        let mut frame =
            BytesMut::with_capacity(start.len() + draft.head.len() + digits.len() + draft.tail.len() + FRAME_END.len());
        for part in [start, &draft.head, digits.as_bytes(), &draft.tail, FRAME_END] {
            frame.extend_from_slice(part);
        }
        let json_at = start.len() as u32;
        Self {
            revision,
            header: *draft.header,
            frame: frame.freeze(),
            json_at,
            metadata_at: json_at + draft.metadata_at,
            managed_len: draft.managed_len,
            revision_at: json_at + draft.head.len() as u32,
            revision_len: digits.len() as u32,
            event_type: event,
            binary: ArcSwapOption::empty(),
        }
    }

    /// What the write that made the object did.
    pub fn event_type(&self) -> EventType {
        self.event_type
    }

    /// The second encoding of its frame, if somebody made it.
    pub fn binary(&self) -> Option<Arc<BinaryFrame>> {
        let frame = self.binary.load_full()?;
        frame.used();
        Some(frame)
    }

    /// Keeps the second encoding of its frame until it was not used for a while.
    pub fn keep_binary(&self, frame: Arc<BinaryFrame>) {
        self.binary.store(Some(frame));
    }

    /// Drops the second encoding if nobody used it since the last call.
    pub fn drop_unused_binary(&self) {
        if self.binary.load().as_ref().is_some_and(|frame| !frame.take_used()) {
            self.binary.store(None);
        }
    }

    /// The same object, removed at `revision`.
    pub fn deleted_at(&self, revision: u64) -> Self {
        Self::new(self.draft(), revision, EventType::Deleted)
    }

    /// The object's text and header without its revision.
    pub fn draft(&self) -> Draft {
        Draft {
            head: self.frame[self.json_at as usize..self.revision_at as usize].to_vec(),
            tail: self.frame[(self.revision_at + self.revision_len) as usize..self.json_end()].to_vec(),
            metadata_at: self.metadata_at - self.json_at,
            managed_len: self.managed_len,
            header: Box::new(self.header.clone()),
        }
    }

    /// Whether the object would be the same as `draft`, but for its revision.
    pub fn equals(&self, draft: &Draft) -> bool {
        self.frame[self.json_at as usize..self.revision_at as usize] == draft.head[..]
            && self.frame[(self.revision_at + self.revision_len) as usize..self.json_end()] == draft.tail[..]
    }

    /// The object's JSON text.
    pub fn json(&self) -> &[u8] {
        &self.frame[self.json_at as usize..self.json_end()]
    }

    /// The object's JSON text, sharing memory with the object.
    pub fn json_bytes(&self) -> Bytes {
        self.frame.slice(self.json_at as usize..self.json_end())
    }

    /// The JSON text of the object without `metadata.managedFields`.
    pub fn json_without_managers(&self) -> Cow<'_, [u8]> {
        if self.managed_len == 0 {
            return Cow::Borrowed(self.json());
        }
        let managers = self.managers_at();
        let (before, after) = (self.json_at as usize..managers.start, managers.end..self.json_end());
        Cow::Owned([&self.frame[before], &self.frame[after]].concat())
    }

    /// The JSON text of `metadata.managedFields`; empty where the object has none.
    pub fn managers(&self) -> &str {
        let field = std::str::from_utf8(&self.frame[self.managers_at()]).unwrap_or_default();
        field.strip_prefix(MANAGED_FIELDS).and_then(|rest| rest.strip_suffix(',')).unwrap_or_default()
    }

    /// Where `"managedFields":[…],` stands.
    fn managers_at(&self) -> std::ops::Range<usize> {
        let end = self.revision_at as usize - RESOURCE_VERSION.len();
        end - self.managed_len as usize..end
    }

    /// The JSON text of `metadata`.
    pub fn metadata(&self) -> &[u8] {
        // The revision is followed by its closing quote and the brace that ends the metadata.
        &self.frame[self.metadata_at as usize..(self.revision_at + self.revision_len) as usize + 2]
    }

    /// The watch frame of the write that made this object: `{"type":…,"object":…}` and a newline.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Bytes of memory held for the text.
    pub fn size(&self) -> usize {
        self.frame.len()
    }

    fn json_end(&self) -> usize {
        self.frame.len() - FRAME_END.len()
    }
}
