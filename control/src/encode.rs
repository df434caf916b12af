//! From a JSON value to what the store keeps: the text in its fixed layout, and the header. Never decides what may be
//! stored.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    kinds::{Cell, Kind, Kinds},
    store::{self, Draft, Header, OwnerReference, Term},
};

/// Lays out an object of a stored kind.
pub fn draft(kind: &Kind, object: &Value) -> Draft {
    let fields = (kind.selectable)(object);
    let term =
        |index: &Cow<'static, str>| Some(Term { index: index.clone(), value: fields.get(index)?.as_str().into() });
    let indexes = kind.indexed.iter().filter_map(term).collect();
    let header = Header { fields, indexes, cells: cells((kind.cells)(object)), ..header(object) };
    lay_out(&kind.api_version(), &kind.kind, object, header)
}

/// The text: `apiVersion`, `kind` and `metadata` first, the resource version last in the metadata.
fn lay_out(api_version: &str, kind: &str, object: &Value, header: Header) -> Draft {
    let mut head = Vec::with_capacity(1024);
    let text = |out: &mut Vec<u8>, value: &Value| {
        serde_json::to_writer(out, value).expect("a JSON value can be written to memory");
    };
    let key = |out: &mut Vec<u8>, name: &str| {
        if !out.ends_with(b"{") {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, name).expect("text can be written to memory");
        out.push(b':');
    };
    head.push(b'{');
    key(&mut head, "apiVersion");
    text(&mut head, &Value::String(api_version.to_owned()));
    key(&mut head, "kind");
    text(&mut head, &Value::String(kind.to_owned()));
    key(&mut head, "metadata");
    let metadata_at = head.len() as u32;
    head.push(b'{');
    for (name, value) in object["metadata"].as_object().into_iter().flatten() {
        if name != "resourceVersion" && name != "selfLink" && !value.is_null() {
            key(&mut head, name);
            text(&mut head, value);
        }
    }
    key(&mut head, "resourceVersion");
    head.push(b'"');
    let mut tail = b"\"}".to_vec();
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            key(&mut tail, name);
            text(&mut tail, value);
        }
    }
    tail.push(b'}');
    Draft { head, tail, metadata_at, header: Box::new(header) }
}

/// What is asked of an object of any kind without parsing it.
fn header(object: &Value) -> Header {
    let metadata = &object["metadata"];
    let text = |value: &Value| -> Box<str> { value.as_str().unwrap_or_default().into() };
    let mut labels: Vec<(Box<str>, Box<str>)> = metadata["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str().into(), text(value)))
        .collect();
    labels.sort();
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten().map(|owner| OwnerReference {
        uid: text(&owner["uid"]),
        kind: text(&owner["kind"]),
        name: text(&owner["name"]),
        controller: owner["controller"] == true,
    });
    Header {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        uid: text(&metadata["uid"]),
        labels: labels.into(),
        owners: owners.collect(),
        deleting: metadata["deletionTimestamp"].is_string(),
        finalizers: metadata["finalizers"].as_array().into_iter().flatten().map(text).collect(),
        ..Header::default()
    }
}

/// Joins the cells of a row to as few parts as there are ages in it, as the inside of a JSON array.
fn cells(row: Vec<Cell>) -> Box<[store::StoredCell]> {
    let mut parts = Vec::new();
    let mut text = String::new();
    for (index, cell) in row.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match cell {
            Cell::Fixed(value) => text.push_str(&value.to_string()),
            Cell::Since { before, at, after } => {
                let quoted = |part: &str| Value::String(part.to_owned()).to_string();
                let (before, after) = (quoted(&before), quoted(&after));
                text.push_str(&before[..before.len() - 1]);
                parts.push(store::StoredCell::Text(std::mem::take(&mut text).into()));
                parts.push(store::StoredCell::Age(at.as_second()));
                text.push_str(&after[1..]);
            }
        }
    }
    if !text.is_empty() {
        parts.push(store::StoredCell::Text(text.into()));
    }
    parts.into()
}

/// Reads an object back from disk. One whose kind is not served (yet, or any more) is kept as it is, so that nothing is
/// lost: it has no cells and no selectable fields until it is written again.
pub fn stored(kinds: &Kinds, resource: &str, json: &[u8]) -> Result<Draft, serde_json::Error> {
    let object: Value = serde_json::from_slice(json)?;
    Ok(match kinds.by_resource(resource) {
        Some(kind) => draft(kind, &object),
        None => unserved(&object),
    })
}

/// Lays out an object whose kind is not served: it has no cells and no selectable fields.
pub fn unserved(object: &Value) -> Draft {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    lay_out(text("apiVersion"), text("kind"), object, header(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EventType, Object};
    use serde_json::json;

    #[test]
    fn the_stored_text_is_the_object_with_its_revision() {
        let pod = json!({"metadata": {"name": "a", "resourceVersion": "3", "labels": {"z": "1", "b": "2"}},
            "kind": "Pod", "apiVersion": "v1", "spec": {"containers": []}});
        let kind = Kinds::built_in().by_path("", "v1", "pods").unwrap();
        let object = Object::new(draft(&kind, &pod), 17, EventType::Added);
        let read: Value = serde_json::from_slice(object.json()).unwrap();
        let mut expected = pod.clone();
        expected["metadata"]["resourceVersion"] = json!("17");
        assert_eq!(read, expected);
        let metadata: Value = serde_json::from_slice(object.metadata()).unwrap();
        assert_eq!(metadata, expected["metadata"]);
        assert_eq!(&*object.header.labels[0].0, "b");
        let frame: Value = serde_json::from_slice(object.frame()).unwrap();
        assert_eq!(frame, json!({"type": "ADDED", "object": expected}));
        assert!(object.equals(&draft(&kind, &pod)));
    }

    #[test]
    fn an_object_without_metadata_still_has_a_revision() {
        let kind = Kinds::built_in().by_path("", "v1", "pods").unwrap();
        let object = Object::new(draft(&kind, &json!({})), 1, EventType::Added);
        let read: Value = serde_json::from_slice(object.json()).unwrap();
        assert_eq!(read["metadata"], json!({"resourceVersion": "1"}));
    }
}
