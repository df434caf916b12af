//! The parts of metadata that the server alone decides: uid, creation, deletion, generated names.

use rand::RngExt;
use serde_json::{Map, Value, json};

use crate::{
    kinds::{FieldError, Naming},
    request::Verb,
    rfc3339,
    status::{Status, Subject},
};

/// The `metadata` of an object, made if it is not there.
pub fn of(object: &mut Value) -> Result<&mut Map<String, Value>, Status> {
    let object = object.as_object_mut().ok_or_else(|| Status::bad_request("the object is not a JSON object"))?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().ok_or_else(|| Status::bad_request("metadata is not a JSON object"))
}

/// Takes out what a client cannot say of an object that it creates.
pub fn wipe(metadata: &mut Map<String, Value>) {
    for field in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.shift_remove(field);
    }
}

/// Sets what a new object gets, in the place of what a client cannot say.
pub fn begin(metadata: &mut Map<String, Value>, namespace: Option<&str>) {
    wipe(metadata);
    metadata.shift_remove("resourceVersion");
    match namespace {
        Some(namespace) => drop(metadata.insert("namespace".into(), namespace.into())),
        None => drop(metadata.shift_remove("namespace")),
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), rfc3339::now().into());
    drop_empty(metadata);
}

/// An empty map or list of metadata is none: two ways to say it would make `kubectl diff` see a change.
fn drop_empty(metadata: &mut Map<String, Value>) {
    for field in ["annotations", "labels", "finalizers", "ownerReferences"] {
        let empty = match metadata.get(field) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Null) => true,
            _ => false,
        };
        if empty {
            metadata.shift_remove(field);
        }
    }
}

/// Keeps what an update cannot change.
pub fn keep(new: &mut Map<String, Value>, old: &Value) {
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        match &old[field] {
            Value::Null => drop(new.shift_remove(field)),
            value => drop(new.insert(field.into(), value.clone())),
        }
    }
    new.shift_remove("selfLink");
    drop_empty(new);
}

/// Refuses metadata that names another object than the path does; fills in what it leaves out.
pub fn must_name(metadata: &mut Map<String, Value>, namespace: Option<&str>, name: Option<&str>) -> Result<(), Status> {
    let given = |metadata: &Map<String, Value>, field: &str| {
        metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let in_namespace = given(metadata, "namespace");
    if !in_namespace.is_empty() && namespace.is_some_and(|namespace| namespace != in_namespace) {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    if let Some(name) = name {
        let named = given(metadata, "name");
        if !named.is_empty() && named != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({name})"
            )));
        }
        metadata.insert("name".into(), name.into());
    }
    if let Some(namespace) = namespace {
        metadata.insert("namespace".into(), namespace.into());
    }
    Ok(())
}

/// The same of an object that must say the name that its path has.
pub fn must_be_named(metadata: &mut Map<String, Value>, namespace: Option<&str>, name: &str) -> Result<(), Status> {
    let is_named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    must_name(metadata, namespace, Some(name))?;
    let why = format!("the name of the object ({name} based on URL) was undeterminable: name must be provided");
    if is_named { Ok(()) } else { Err(Status::bad_request(why)) }
}

/// Refuses a write that was meant for another object of the same name. A patch that names another UID is taken for one
/// that would change it, as in Kubernetes: see [`unchangeable`].
pub fn must_be_same(new: &Map<String, Value>, old: &Value, subject: Subject, verb: Verb) -> Result<(), Status> {
    let (given, stored) = (uid(new), old["uid"].as_str().unwrap_or_default());
    if given.is_empty() || given == stored || verb == Verb::Patch {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {stored}");
    Err(Status::conflict(subject, &why))
}

/// What an update says of fields that no update changes: another UID, the beginning of a deletion, another period of
/// grace. What it says of the others is left unread.
pub fn unchangeable(new: &Map<String, Value>, old: &Value) -> Vec<FieldError> {
    let is_another = !uid(new).is_empty() && new.get("uid") != old.get("uid");
    let time = new.get("deletionTimestamp").filter(|time| !time.is_null() && old["deletionTimestamp"].is_null());
    let grace = new.get("deletionGracePeriodSeconds");
    let grace = grace.filter(|grace| !grace.is_null() && **grace != old["deletionGracePeriodSeconds"]);
    let mut errors: Vec<FieldError> = Vec::new();
    errors.extend(is_another.then(|| FieldError::immutable("metadata.uid", &uid(new).into())));
    errors.extend(time.map(|time| FieldError::immutable("metadata.deletionTimestamp", time)));
    errors.extend(grace.map(|grace| FieldError::immutable("metadata.deletionGracePeriodSeconds", grace)));
    errors
}

fn uid(metadata: &Map<String, Value>) -> &str {
    metadata.get("uid").and_then(Value::as_str).unwrap_or_default()
}

/// The name of a new object that is sent without one; `None` where it stays without.
pub fn name_for_unnamed(naming: Naming, base: &str) -> Option<String> {
    match (naming, base) {
        (Naming::OrUuid, "") => Some(uuid::Uuid::new_v4().to_string()),
        (_, "") => None,
        (Naming::BaseAlone, base) => Some(base.to_owned()),
        (Naming::Suffixed | Naming::OrUuid, base) => Some(generated(base)),
    }
}

/// Kubernetes' alphabet for generated names: no vowels and nothing that looks like another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
const MAX_NAME: usize = 63;

/// `base` with a random suffix, at most 63 bytes.
pub fn generated(base: &str) -> String {
    let mut base = base;
    while base.len() > MAX_NAME - SUFFIX {
        let end = base.char_indices().next_back().map_or(0, |(at, _)| at);
        base = &base[..end];
    }
    let mut random = rand::rng();
    let suffix: String = (0..SUFFIX).map(|_| ALPHABET[random.random_range(0..ALPHABET.len())] as char).collect();
    format!("{base}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_maps_and_lists_of_metadata_are_none() {
        let mut new = json!({"name": "a", "annotations": {}, "labels": null, "finalizers": [], "ownerReferences": [1]});
        let metadata = new.as_object_mut().unwrap();
        keep(metadata, &json!({"name": "a"}));
        assert_eq!(Value::Object(metadata.clone()), json!({"name": "a", "ownerReferences": [1]}));
    }

    #[test]
    fn no_update_begins_a_deletion_or_makes_another_object() {
        let told = |new: Value, old: Value| {
            let errors = unchangeable(new.as_object().unwrap(), &old).into_iter();
            errors.map(|error| format!("{}: {}", error.path, error.message)).collect::<Vec<_>>()
        };
        let time = json!({"deletionTimestamp": "2020-01-01T00:00:00Z"});
        let refused = "metadata.deletionTimestamp: Invalid value: \"2020-01-01T00:00:00Z\": field is immutable";
        assert_eq!(told(time.clone(), json!({})), [refused]);
        assert!(told(time.clone(), time).is_empty());
        assert_eq!(told(json!({"deletionGracePeriodSeconds": 5}), json!({})).len(), 1);
        assert!(told(json!({"deletionGracePeriodSeconds": 5}), json!({"deletionGracePeriodSeconds": 5})).is_empty());
        let other = json!({"uid": "b", "deletionGracePeriodSeconds": 5});
        let words = told(other, json!({"uid": "a"}));
        assert_eq!((&*words[0], words.len()), ("metadata.uid: Invalid value: \"b\": field is immutable", 2));
        assert!(told(json!({"uid": ""}), json!({"uid": "a"})).is_empty());
    }

    #[test]
    fn each_kind_names_what_has_no_name_in_its_own_way() {
        let length = |naming, base: &str| name_for_unnamed(naming, base).map(|name| name.len());
        assert_eq!((length(Naming::Suffixed, "web-"), length(Naming::Suffixed, "")), (Some(9), None));
        assert_eq!((length(Naming::OrUuid, "web-"), length(Naming::OrUuid, "")), (Some(9), Some(36)));
        assert_eq!(name_for_unnamed(Naming::BaseAlone, "10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(name_for_unnamed(Naming::BaseAlone, ""), None);
    }

    #[test]
    fn a_generated_name_keeps_its_base_within_63_bytes() {
        assert!(generated("web-").starts_with("web-"));
        assert_eq!(generated("web-").len(), 9);
        assert_eq!(generated(&"a".repeat(80)).len(), 63);
    }
}
