//! Reads: get, list and watch, in the form the client takes. Stored bytes are copied, not parsed.
//!
//! | file | what it decides |
//! |---|---|
//! | `options` | which state a read is answered from, and which options go together |
//! | `continue_token` | where the next page of a list begins |
//! | `get`, `list`, `watch` | the three reads |
//! | `list_text`, `list_protobuf` | the bytes of a list, made in parts |
//! | `table`, `frames` | the Table form; the frames of a watch |
//! | `watch_stream`, `pacing` | in which order and when a watch's frames are sent |

mod continue_token;
mod frames;
mod get;
mod list;
mod list_protobuf;
mod list_text;
mod options;
mod pacing;
pub mod table;
mod watch;
mod watch_stream;

pub use get::{get, get_computed, render};
use list::page;
pub(super) use list::{answer_list, select};
pub use list::{list, list_computed};
pub(super) use options::NoState;
pub use watch::watch;

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::request::{Call, target::RequestTarget};
use crate::{
    definitions::conversion,
    kinds::{Kind, Storage},
    request::{RequestInfo, accept::MetaVersion, selector::FieldSelector},
    store::{KEY_INDEX, NAME_INDEX, NAMESPACE_INDEX, Object, PackedHeader},
};

/// Whether answers have `metadata.managedFields`.
///
/// Clients in process write whole objects without it, which keeps the account as it is, and never look at it: reading
/// it would be half the work of reading a small object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Managers {
    /// As they are stored.
    Shown,
    /// The rest of the object alone.
    LeftOut,
}

impl Managers {
    /// For the client of this request.
    pub fn of(request: &RequestInfo) -> Self {
        if request.in_process { Self::LeftOut } else { Self::Shown }
    }
}

/// The JSON text of an object as the served kind shows it: the stored bytes, unless it is stored as another kind.
fn shown(kind: &Kind, object: &Object, managers: Managers) -> Bytes {
    match &kind.storage {
        Storage::As(stored) => {
            let Ok(mut value) = serde_json::from_slice::<Value>(&object.json()) else {
                return object.json().into_owned().into();
            };
            (stored.from_stored)(&mut value, kind);
            if managers == Managers::LeftOut
                && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
            {
                metadata.remove("managedFields");
            }
            Bytes::from(value.to_string())
        }
        Storage::Stored | Storage::Virtual | Storage::Computed => match managers {
            Managers::Shown => object.json().into_owned().into(),
            Managers::LeftOut => object.json_without_managers().into_owned().into(),
        },
    }
}

/// The same for a text that goes into a longer one.
fn show(kind: &Kind, object: &Object, managers: Managers, out: &mut Vec<u8>) {
    match (&kind.storage, managers) {
        (Storage::As(_), _) => out.extend_from_slice(&shown(kind, object, managers)),
        (Storage::Stored | Storage::Virtual | Storage::Computed, Managers::Shown) => object.write_json(out),
        (_, Managers::LeftOut) => object.write_json_without_managers(out),
    }
}

/// Whether a field selector takes an object, as the served kind sees it.
fn takes(kind: &Kind, fields: &FieldSelector, object: &Object) -> bool {
    let seen = if fields.is_empty() { None } else { conversion::header_as(kind, object) };
    fields.matches(seen.as_ref().map_or_else(|| object.header(), PackedHeader::get))
}

/// `{"kind":"PartialObjectMetadata",…}` of an object.
fn show_metadata(object: &Object, version: MetaVersion, managers: Managers, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    match managers {
        Managers::Shown => object.write_metadata(out),
        Managers::LeftOut => object.write_metadata_without_managers(out),
    }
    out.push(b'}');
}

/// What Kubernetes calls the type of an answer: `*core.PodList`. `suffix` is `List` or nothing.
fn go_type(kind: &Kind, suffix: &str) -> String {
    if !kind.is_built_in() {
        return format!("*unstructured.Unstructured{suffix}");
    }
    let package = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    format!("*{package}.{}{suffix}", kind.kind)
}

/// The indexed value that all objects have which a request can select, if it names one: the index, and the value.
fn indexed<'a>(call: &'a Call, fields: &'a FieldSelector, stored: &'a Kind) -> Option<(&'a str, &'a str)> {
    let name = call.target.name.as_deref().or(fields.name()).map(|name| (NAME_INDEX, name));
    name.or_else(|| stored.indexed.iter().find_map(|index| Some((&**index, fields.exact(index)?))))
}

/// The same for a watch, which is told the changes of one object or of one namespace alone, too.
fn watched<'a>(call: &'a Call, fields: &'a FieldSelector, stored: &'a Kind) -> Option<(&'a str, Cow<'a, str>)> {
    let namespace = namespace(call, fields);
    match indexed(call, fields, stored) {
        Some((NAME_INDEX, name)) if let Some(namespace) = namespace => {
            Some((KEY_INDEX, format!("{namespace}/{name}").into()))
        }
        Some((index, value)) => Some((index, value.into())),
        None => Some((NAMESPACE_INDEX, namespace?.into())),
    }
}

/// The one namespace that a request can select objects of, if it names one.
fn namespace<'a>(call: &'a Call, fields: &'a FieldSelector) -> Option<&'a str> {
    let selected = || fields.exact(NAMESPACE_INDEX).filter(|_| call.target.kind.namespaced);
    call.target.namespace.as_deref().or_else(selected)
}

/// What the keys of a request's objects start with: the namespace and a slash, or nothing.
pub fn prefix(target: &RequestTarget) -> String {
    target.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default()
}
