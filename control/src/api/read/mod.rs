//! Reads: get, list and watch, in the form the client takes. Stored bytes are copied, not parsed.

mod get;
mod list;
pub mod table;
mod watch;

pub use get::{get, render};
pub use list::list;
pub(super) use list::page;
pub use watch::watch;

use bytes::Bytes;
use serde_json::Value;

use super::request::{Call, target::Target};
use crate::{
    custom::conversion,
    kinds::{Kind, Storage},
    request::selector::FieldSelector,
    store::{NAME_INDEX, Object},
};

/// The JSON text of an object as the served kind shows it: the stored bytes, unless it is stored as another kind.
fn shown(kind: &Kind, object: &Object) -> Bytes {
    match &kind.storage {
        Storage::As(stored) => {
            let Ok(mut value) = serde_json::from_slice::<Value>(object.json()) else { return object.json_bytes() };
            (stored.from_stored)(&mut value, kind);
            Bytes::from(value.to_string())
        }
        Storage::Stored | Storage::Virtual => object.json_bytes(),
    }
}

/// The same for a text that goes into a longer one.
fn show(kind: &Kind, object: &Object, out: &mut Vec<u8>) {
    match &kind.storage {
        Storage::As(_) => out.extend_from_slice(&shown(kind, object)),
        Storage::Stored | Storage::Virtual => out.extend_from_slice(object.json()),
    }
}

/// Whether a field selector takes an object, as the served kind sees it.
fn takes(kind: &Kind, fields: &FieldSelector, object: &Object) -> bool {
    let seen = if fields.is_empty() { None } else { conversion::header_as(kind, object) };
    fields.matches(seen.as_ref().unwrap_or(&object.header))
}

/// `{"kind":"PartialObjectMetadata",…}` of an object.
fn show_metadata(object: &Object, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(object.metadata());
    out.push(b'}');
}

/// The indexed value that all objects have which a request can select, if it names one: the index, and the value.
fn indexed<'a>(call: &'a Call, fields: &'a FieldSelector, stored: &'a Kind) -> Option<(&'a str, &'a str)> {
    let name = call.target.name.as_deref().or(fields.name()).map(|name| (NAME_INDEX, name));
    name.or_else(|| stored.indexed.iter().find_map(|index| Some((&**index, fields.exact(index)?))))
}

/// What the keys of a request's objects start with: the namespace and a slash, or nothing.
pub fn prefix(target: &Target) -> String {
    target.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default()
}
