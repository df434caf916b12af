//! From a JSON value to what the store keeps: the text in its fixed layout, and the header. Never decides what may be
//! stored.

use std::{borrow::Cow, ops::Range};

use serde_json::Value;

use crate::{
    kinds::{Cell, Kind, Kinds},
    store::{Draft, HeaderParts, MANAGED_FIELDS, Owner, RESOURCE_VERSION, StoredCell},
};

/// Lays out an object of a stored kind whose fields are nobody's.
pub fn draft(kind: &Kind, object: &Value) -> Draft {
    managed_draft(kind, object, "")
}

/// Lays out an object of a stored kind. `managers` is the text of its `managedFields`; what the object itself has under
/// this name does not count.
pub fn managed_draft(kind: &Kind, object: &Value, managers: &str) -> Draft {
    let fields = (kind.selectable)(object);
    let header = HeaderParts { fields, indexed: &kind.indexed, cells: cells((kind.cells)(object)), ..header(object) };
    lay_out(&kind.api_version(), &kind.kind, object, managers, &header)
}

/// The text: `apiVersion`, `kind` and `metadata` first; in the metadata the managers and then the resource version
/// last.
fn lay_out(api_version: &str, kind: &str, object: &Value, managers: &str, header: &HeaderParts<'_>) -> Draft {
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
        let own = matches!(name.as_str(), "managedFields" | "resourceVersion" | "selfLink");
        if !own && !value.is_null() {
            key(&mut head, name);
            text(&mut head, value);
        }
    }
    if !head.ends_with(b"{") {
        head.push(b',');
    }
    let managed_at = head.len();
    if !managers.is_empty() {
        head.extend_from_slice(MANAGED_FIELDS.as_bytes());
        head.extend_from_slice(managers.as_bytes());
        head.push(b',');
    }
    let managed_len = (head.len() - managed_at) as u32;
    head.extend_from_slice(RESOURCE_VERSION.as_bytes());
    let mut tail = b"\"}".to_vec();
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            key(&mut tail, name);
            text(&mut tail, value);
        }
    }
    tail.push(b'}');
    Draft { head, tail, metadata_at, managed_len, header: header.pack() }
}

/// What is asked of an object of any kind without parsing it.
fn header(object: &Value) -> HeaderParts<'_> {
    fn text(value: &Value) -> &str {
        value.as_str().unwrap_or_default()
    }
    let metadata = &object["metadata"];
    let labels = metadata["labels"].as_object().into_iter().flatten();
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten().map(|owner| Owner {
        uid: text(&owner["uid"]),
        kind: text(&owner["kind"]),
        name: text(&owner["name"]),
        controller: owner["controller"] == true,
    });
    HeaderParts {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        uid: text(&metadata["uid"]),
        labels: labels.map(|(name, value)| (name.as_str(), text(value))).collect(),
        owners: owners.collect(),
        deleting: metadata["deletionTimestamp"].is_string(),
        finalizers: metadata["finalizers"].as_array().into_iter().flatten().map(text).collect(),
        ..HeaderParts::default()
    }
}

/// Joins the cells of a row to as few parts as there are ages in it, as the inside of a JSON array.
fn cells(row: Vec<Cell>) -> Vec<StoredCell<'static>> {
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
                parts.push(StoredCell::Text(std::mem::take(&mut text).into()));
                parts.push(StoredCell::Age(at.as_second()));
                text.push_str(&after[1..]);
            }
        }
    }
    if !text.is_empty() {
        parts.push(StoredCell::Text(text.into()));
    }
    parts
}

/// Reads an object back from disk, with its quantities in the canonical form that a write gives them: an older program
/// stored them as they were sent. One whose kind is not served (yet, or any more) is kept as it is, so that nothing is
/// lost: it has no cells and no selectable fields until it is written again.
pub fn stored(kinds: &Kinds, resource: &str, json: &[u8]) -> Result<Draft, serde_json::Error> {
    let (json, managers) = without_managers(json);
    let mut object: Value = serde_json::from_slice(&json)?;
    Ok(match kinds.by_resource(resource) {
        Some(kind) => {
            kind.schema.make_quantities_canonical(&mut object);
            managed_draft(kind, &object, managers)
        }
        None => lay_out_unserved(&object, managers),
    })
}

/// Lays out an object whose kind is not served: it has no cells and no selectable fields.
pub fn unserved(object: &Value) -> Draft {
    lay_out_unserved(object, "")
}

fn lay_out_unserved(object: &Value, managers: &str) -> Draft {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    lay_out(text("apiVersion"), text("kind"), object, managers, &header(object))
}

/// A stored text without `metadata.managedFields`, and the text of that: to read it is more work than to read a small
/// object. Text that is not laid out as above is left as it is.
fn without_managers(json: &[u8]) -> (Cow<'_, [u8]>, &str) {
    let Some(field) = managers_in(json) else { return (Cow::Borrowed(json), "") };
    let managers = &json[field.start + MANAGED_FIELDS.len()..field.end - 1];
    let Ok(managers) = std::str::from_utf8(managers) else { return (Cow::Borrowed(json), "") };
    (Cow::Owned([&json[..field.start], &json[field.end..]].concat()), managers)
}

/// Where `"managedFields":[…],` stands in the metadata of a stored text.
fn managers_in(json: &[u8]) -> Option<Range<usize>> {
    const METADATA: &[u8] = b",\"metadata\":{";
    // `apiVersion` and `kind` come first, and neither has a quote in it.
    let metadata = json.windows(METADATA.len()).take(512).position(|text| text == METADATA)? + METADATA.len();
    let (mut depth, mut at) = (0_usize, metadata);
    let mut start = None;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                if depth == 0 && json[at..].starts_with(MANAGED_FIELDS.as_bytes()) {
                    start = Some(at);
                } else if depth == 0 && json[at..].starts_with(RESOURCE_VERSION.as_bytes()) {
                    return start.map(|start| start..at);
                } else if depth == 0 {
                    // Another field: the managers did not stand last.
                    start = None;
                }
                at = end_of_string(json, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The place behind a JSON string that begins at `at`.
fn end_of_string(json: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match json.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        schema::SentEmpties,
        store::{EventType, Object},
    };
    use serde_json::json;

    #[test]
    fn the_stored_text_is_the_object_with_its_revision() {
        let pod = json!({"metadata": {"name": "a", "resourceVersion": "3", "labels": {"z": "1", "b": "2"}},
            "kind": "Pod", "apiVersion": "v1", "spec": {"containers": []}});
        let kind = Kinds::built_in().by_path("", "v1", "pods").unwrap();
        let object = Object::new(draft(&kind, &pod), 17, EventType::Added);
        let read: Value = serde_json::from_slice(&object.json()).unwrap();
        let mut expected = pod.clone();
        expected["metadata"]["resourceVersion"] = json!("17");
        assert_eq!(read, expected);
        let mut metadata = Vec::new();
        object.write_metadata(&mut metadata);
        let metadata: Value = serde_json::from_slice(&metadata).unwrap();
        assert_eq!(metadata, expected["metadata"]);
        assert_eq!(object.header().labels().next(), Some(("b", "2")));
        let frame: Value = serde_json::from_slice(&object.frame()).unwrap();
        assert_eq!(frame, json!({"type": "ADDED", "object": expected}));
        assert!(object.equals(&draft(&kind, &pod)));
    }

    #[test]
    fn the_managers_stand_apart_in_the_text_and_are_found_again() {
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a",
            "annotations": {"x": "\\\",\"managedFields\":[1],\"resourceVersion\":\""}, "managedFields": "nothing"},
            "data": {"managedFields": "y"}});
        let kinds = Kinds::built_in();
        let kind = kinds.by_path("", "v1", "configmaps").unwrap();
        let managers = r#"[{"manager":"m\"]","fieldsV1":{"f:data":{}}}]"#;
        let object = Object::new(managed_draft(&kind, &map, managers), 17, EventType::Added);
        assert_eq!(object.managers(), managers);
        let whole: Value = serde_json::from_slice(&object.json()).unwrap();
        assert_eq!(whole["metadata"]["managedFields"][0]["manager"], "m\"]");
        let mut rest: Value = serde_json::from_slice(&object.json_without_managers()).unwrap();
        assert_eq!(rest["metadata"]["managedFields"], Value::Null);
        rest["metadata"]["managedFields"] = whole["metadata"]["managedFields"].clone();
        assert_eq!(rest, whole);
        let read = stored(&kinds, "configmaps", &object.json()).unwrap();
        assert!(object.equals(&read));
        assert_eq!(Object::new(read, 3, EventType::Added).managers(), managers);
        let without = Object::new(draft(&kind, &map), 17, EventType::Added);
        assert_eq!((&*without.managers(), without.json_without_managers().len()), ("", without.json().len()));
        let read = stored(&kinds, "configmaps", &without.json()).unwrap();
        assert!(without.equals(&read) && read.managed_len == 0);
    }

    #[test]
    fn quantities_of_an_older_data_directory_are_read_in_their_canonical_form() {
        let kinds = Kinds::built_in();
        let pod = |cpu: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers":
                [{"name": "c", "image": "x", "resources": {"limits": {"cpu": cpu}}}]}})
        };
        let kind = kinds.by_path("", "v1", "pods").unwrap();
        let old = Object::new(draft(&kind, &pod("1000m")), 17, EventType::Added);
        let read = Object::new(stored(&kinds, "pods", &old.json()).unwrap(), 17, EventType::Added);
        let (stored, sent): (Value, Value) =
            (serde_json::from_slice(&read.json()).unwrap(), kind.schema.decode_value(pod("1000m")).unwrap().value);
        assert_eq!(stored["spec"], pod("1")["spec"]);
        assert_eq!((kind.validate)(&sent, Some(&stored), &SentEmpties::NONE), [], "it is sent back as it was written");
    }

    #[test]
    fn an_object_without_metadata_still_has_a_revision() {
        let kind = Kinds::built_in().by_path("", "v1", "pods").unwrap();
        let object = Object::new(draft(&kind, &json!({})), 1, EventType::Added);
        let read: Value = serde_json::from_slice(&object.json()).unwrap();
        assert_eq!(read["metadata"], json!({"resourceVersion": "1"}));
    }
}
