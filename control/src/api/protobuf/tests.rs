//! That no field lacks a number, and whole bodies as Kubernetes' own encoder wrote them.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::{
    kinds::Kinds,
    schema::{Numbered, Numbers},
};

fn numbered(numbers: &Numbers) -> BTreeSet<usize> {
    let inner = |number: &Numbered| match number {
        Numbered::Field(at) => BTreeSet::from([*at]),
        Numbered::Embedded(numbers) => numbered(numbers),
    };
    numbers.values().flat_map(inner).collect()
}

/// A field without a number would silently be dropped from what clients send as protobuf.
#[test]
fn every_field_of_every_type_has_a_number() {
    for kind in Kinds::built_in().iter() {
        assert!(Types::builtin().of_kind(&kind.api_version(), &kind.kind).is_some(), "{kind:?}");
    }
    for (id, definition) in Types::builtin().definitions() {
        let Some(object) = Types::builtin().object(id) else { continue };
        let numbered = numbered(object.numbers());
        for (at, field) in object.fields().iter().enumerate() {
            let of_the_envelope = matches!(&*field.name, "apiVersion" | "kind");
            assert!(numbered.contains(&at) || of_the_envelope, "{}.{}", definition.name, field.name);
        }
    }
}

/// Objects with a value in every field: a line each, the body in hex, a tab, the JSON of the same object. Written by
/// `k8s.io/api` v0.35.4.
#[test]
fn every_field_of_an_object_survives() {
    let mut read = 0;
    for line in include_str!("full_objects.tsv").lines() {
        let (body, expected) = line.split_once('\t').unwrap();
        let expected: Value = serde_json::from_str(expected).unwrap();
        let body = hex::decode(body).unwrap();
        let found = object(&body).unwrap();
        assert_eq!(found, expected);
        read += 1;
    }
    assert!(read > 5);
}

#[test]
fn zero_means_absent_unless_the_field_tells_them_apart() {
    // terminationGracePeriodSeconds 0 (a pointer in Kubernetes), hostNetwork false and nodeName "" (values).
    let spec = [0x20, 0x00, 0x52, 0x00, 0x58, 0x00];
    let mut pod = vec![0x12, spec.len() as u8];
    pod.extend(spec);
    let object = self::object(&body("v1", "Pod", &pod)).unwrap();
    assert_eq!(object["spec"], json!({"terminationGracePeriodSeconds": 0}));
}

#[test]
fn what_cannot_be_read_is_refused() {
    for bytes in [b"{}".to_vec(), body("v1", "Pod", &[0x12, 0x50]), body("example.org/v1", "Thing", &[])] {
        assert_eq!(object(&bytes).unwrap_err().code, 400);
    }
}

/// A `runtime.Unknown`. Texts and `raw` are shorter than 128 bytes.
fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let text = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let type_meta = [text(1, api_version.as_bytes()), text(2, kind.as_bytes())].concat();
    [MAGIC, &text(1, &type_meta), &text(2, raw)].concat()
}
