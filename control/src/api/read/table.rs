//! The Table form (`meta.k8s.io`): columns of the kind, and rows whose cells were made when the object was written.

use jiff::Timestamp;
use serde_json::json;

use super::{Managers, show_metadata};
use crate::{
    kinds::{Kind, age},
    request::{accept::MetaVersion, query::IncludeObject},
    store::{Object, StoredCell},
};

/// Everything before the first row. Without a kind, the columns are left out: a watch names them once.
pub fn begin(out: &mut Vec<u8>, kind: Option<&Kind>, version: MetaVersion, metadata: &str) {
    let start = format!(r#"{{"kind":"Table","apiVersion":"{}","metadata":{metadata}"#, version.api_version());
    out.extend_from_slice(start.as_bytes());
    out.extend_from_slice(br#","columnDefinitions":"#);
    let columns = kind.map(|kind| -> Vec<_> {
        let column = |column: &crate::kinds::Column| {
            json!({"name": column.name, "type": column.r#type, "format": column.format,
                "description": column.description, "priority": column.priority})
        };
        kind.columns.iter().map(column).collect()
    });
    out.extend_from_slice(json!(columns).to_string().as_bytes());
    out.extend_from_slice(br#","rows":["#);
}

/// How rows are written for one client.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// What a row carries beside its cells.
    pub include: IncludeObject,
    /// The version of `PartialObjectMetadata` in it.
    pub version: MetaVersion,
    /// When ages are told for.
    pub now: Timestamp,
}

impl Rows {
    /// One row, with what the client wants of the object.
    pub fn row(&self, out: &mut Vec<u8>, object: &Object, show: impl FnOnce(&Object, &mut Vec<u8>)) {
        out.extend_from_slice(br#"{"cells":["#);
        for cell in object.header().cells() {
            match cell {
                StoredCell::Text(text) => out.extend_from_slice(text.as_bytes()),
                StoredCell::Age(at) => {
                    let age = age::human(self.now.as_second().saturating_sub(at));
                    out.extend_from_slice(age.as_bytes());
                }
            }
        }
        out.extend_from_slice(br#"],"object":"#);
        match self.include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Metadata | IncludeObject::Unknown => {
                show_metadata(object, self.version, Managers::Shown, out);
            }
            IncludeObject::Object => show(object, out),
        }
        out.push(b'}');
    }
}

/// Everything after the last row.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}");
}
