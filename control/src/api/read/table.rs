//! The Table form (`meta.k8s.io/v1`): columns of the kind, and rows whose cells were made when the object was written.

use jiff::Timestamp;
use serde_json::json;

use super::show_metadata;
use crate::{
    kinds::{Kind, age},
    request::query::IncludeObject,
    store::{Object, StoredCell},
};

/// Everything before the first row. Without a kind, the columns are left out: a watch names them once.
pub fn begin(out: &mut Vec<u8>, kind: Option<&Kind>, metadata: &str) {
    out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(metadata.as_bytes());
    out.extend_from_slice(br#","columnDefinitions":"#);
    let columns: Vec<_> = kind
        .into_iter()
        .flat_map(|kind| &*kind.columns)
        .map(|column| {
            json!({"name": column.name, "type": column.r#type, "format": column.format,
                "description": column.description, "priority": column.priority})
        })
        .collect();
    out.extend_from_slice(serde_json::Value::Array(columns).to_string().as_bytes());
    out.extend_from_slice(br#","rows":["#);
}

/// One row, with what the client wants of the object.
pub fn row(
    out: &mut Vec<u8>,
    object: &Object,
    include: IncludeObject,
    now: Timestamp,
    show: impl FnOnce(&Object, &mut Vec<u8>),
) {
    if !out.ends_with(b"[") {
        out.push(b',');
    }
    out.extend_from_slice(br#"{"cells":["#);
    for cell in &object.header.cells {
        match cell {
            StoredCell::Text(text) => out.extend_from_slice(text.as_bytes()),
            StoredCell::Age(at) => out.extend_from_slice(age::human(now.as_second() - at).as_bytes()),
        }
    }
    out.extend_from_slice(br#"],"object":"#);
    match include {
        IncludeObject::None => out.extend_from_slice(b"null"),
        IncludeObject::Metadata => show_metadata(object, out),
        IncludeObject::Object => show(object, out),
    }
    out.push(b'}');
}

/// Everything after the last row.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}");
}
