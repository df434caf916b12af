//! Answers in Kubernetes' protobuf: single objects, lists, and the frames of a watch.
//!
//! A whole object is `k8s\0` and a `runtime.Unknown { typeMeta, raw }`; a frame of a watch is its length in four bytes
//! and a `WatchEvent { type, object }` around the whole object. The message of a stored object is made once, as the
//! frame of the write that made it, and kept beside its text: lists and all watchers share it. A list keeps what it
//! makes only while there is room.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::{
    MAGIC,
    encode::{self, CannotEncode, Encoder, bytes, bytes_header, field_length, nested},
    json::JsonReader,
};
use crate::{
    kinds::{Kind, Storage},
    schema::{TypeId, Types},
    store::{Object, SharedFrame},
};

/// The message of an object's JSON text, by its type.
pub fn message(id: TypeId, json: &[u8]) -> Result<Vec<u8>, CannotEncode> {
    let types = Types::builtin();
    let mut out = Vec::with_capacity(json.len());
    let object = types.object(id).ok_or_else(|| CannotEncode::Value("a text".to_owned(), "object"))?;
    Encoder::new(types).message(object, &mut JsonReader::new(json), &mut out)?;
    Ok(out)
}

/// An answer of any built-in type as a whole: its text says what it is. `None` where the type has no protobuf form.
pub fn whole(json: &[u8]) -> Option<Vec<u8>> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    let read = JsonReader::new(json).object(|name, value| {
        match name {
            "apiVersion" => api_version = value.string()?.into_owned(),
            "kind" => kind = value.string()?.into_owned(),
            _ => drop(value.raw()?),
        }
        Ok::<_, super::json::NotJson>(())
    });
    read.ok()?;
    let id = match kind.as_str() {
        "Status" => Types::builtin().of_kind("meta.k8s.io/v1", "Status")?,
        // What has metadata and nothing else.
        "PartialObjectMetadata" => Types::builtin().of_kind("meta.k8s.io/v1", "Unstructured")?,
        _ => Types::builtin().of_kind(&api_version, &kind)?,
    };
    let message = message(id, json).ok()?;
    let mut out = Vec::with_capacity(message.len() + 64);
    begin(&mut out, &api_version, &kind, message.len());
    out.extend_from_slice(&message);
    Some(out)
}

/// The message of a stored object.
pub struct StoredMessage {
    /// The message.
    pub bytes: Bytes,
    /// Whether it stands in a frame that all readers share.
    pub is_shared: bool,
}

/// The message of a stored object, as the served kind shows it; `converted` is its text where it is stored as another
/// kind.
pub fn stored(kind: &Kind, object: &Object, converted: impl FnOnce() -> Bytes) -> Result<StoredMessage, CannotEncode> {
    let own = |json: &[u8]| {
        message(kind.schema.root(), json).map(|message| StoredMessage { bytes: message.into(), is_shared: false })
    };
    match kind.storage {
        Storage::As(_) => own(&converted()),
        Storage::Stored | Storage::Virtual | Storage::Computed => match frame_if_room(kind, object) {
            Some(frame) => Ok(StoredMessage { bytes: frame?.message(), is_shared: true }),
            None => own(&object.json()),
        },
    }
}

/// The message of `PartialObjectMetadata`: the first field of every object's.
pub fn metadata(object: &Object) -> Result<Vec<u8>, CannotEncode> {
    let types = Types::builtin();
    let object_meta = types.of_kind("meta.k8s.io/v1", "ObjectMeta").and_then(|id| types.object(id));
    let object_meta = object_meta.ok_or_else(|| CannotEncode::Value("ObjectMeta".to_owned(), "type"))?;
    let mut metadata = Vec::new();
    object.write_metadata(&mut metadata);
    let mut out = Vec::with_capacity(metadata.len());
    nested(&mut out, 1, |out| Encoder::new(types).message(object_meta, &mut JsonReader::new(&metadata), out))?;
    Ok(out)
}

/// The frame of the write that made a stored object of this (stored) kind.
pub fn frame(kind: &Kind, object: &Object) -> Result<Arc<SharedFrame>, CannotEncode> {
    if let Some(frame) = object.binary() {
        return Ok(frame);
    }
    let message = message(kind.schema.root(), &object.json())?;
    let frame = watch_frame(object.event_type().name(), &kind.api_version(), &kind.kind, &message);
    let frame = SharedFrame::keep(frame, message.len());
    object.set_binary(&frame);
    Ok(frame)
}

/// The same for one object among many: nothing where nobody has made it and there is no room to keep it.
pub fn frame_if_room(kind: &Kind, object: &Object) -> Option<Result<Arc<SharedFrame>, CannotEncode>> {
    match object.binary() {
        Some(frame) => Some(Ok(frame)),
        None => SharedFrame::has_room().then(|| frame(kind, object)),
    }
}

/// What stands before the items of a list, whose messages have these lengths. `metadata` is the text of its ListMeta.
pub fn list_head(api_version: &str, kind: &str, metadata: &Value, lengths: &[usize]) -> Result<Vec<u8>, CannotEncode> {
    let list_meta = Types::builtin().of_kind("meta.k8s.io/v1", "ListMeta");
    let list_meta = list_meta.ok_or_else(|| CannotEncode::Value("ListMeta".to_owned(), "type"))?;
    let metadata = message(list_meta, metadata.to_string().as_bytes())?;
    let items = lengths.iter().map(|length| field_length(*length));
    let length = items.fold(field_length(metadata.len()), usize::saturating_add);
    let mut out = Vec::with_capacity(metadata.len() + 128);
    begin(&mut out, api_version, kind, length);
    bytes(&mut out, 1, &metadata);
    Ok(out)
}

/// Adds an item of a list behind [`list_head`].
pub fn list_item(out: &mut Vec<u8>, message: &[u8]) {
    bytes(out, 2, message);
}

/// A frame of a watch.
pub fn watch_frame(event_type: &str, api_version: &str, kind: &str, message: &[u8]) -> Bytes {
    let mut whole = Vec::with_capacity(96);
    begin(&mut whole, api_version, kind, message.len());
    let object = whole.len() + message.len();
    let event = field_length(event_type.len()) + field_length(field_length(object));
    let mut out = Vec::with_capacity(4 + event);
    // A frame is smaller than the largest body, which is a few megabytes.
    out.extend_from_slice(&u32::try_from(event).unwrap_or(u32::MAX).to_be_bytes());
    bytes(&mut out, 1, event_type.as_bytes());
    bytes_header(&mut out, 2, field_length(object));
    bytes_header(&mut out, 1, object);
    out.extend_from_slice(&whole);
    out.extend_from_slice(message);
    out.into()
}

/// What stands before a message of `length` bytes: `k8s\0` and the beginning of its `runtime.Unknown`.
fn begin(out: &mut Vec<u8>, api_version: &str, kind: &str, length: usize) {
    out.extend_from_slice(MAGIC);
    bytes_header(out, 1, field_length(api_version.len()) + field_length(kind.len()));
    bytes(out, 1, api_version.as_bytes());
    bytes(out, 2, kind.as_bytes());
    encode::bytes_header(out, 2, length);
}
