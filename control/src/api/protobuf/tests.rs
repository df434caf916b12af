//! The table against the OpenAPI definitions, and whole bodies as Kubernetes' own encoder wrote them.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    messages::{Form, Message, Scalar},
    *,
};
use crate::{
    api::openapi::schemas::{Container, Holds, Shapes},
    kinds::Kinds,
};

/// Every name a message's fields have in JSON, those of inlined messages included.
fn names(message: &'static Message) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    for field in message.fields.values() {
        match (field.name, field.scalar) {
            (Some(name), _) => drop(names.insert(name)),
            (None, Scalar::Message(inner)) => names.extend(self::names(Messages::all().by_name(inner).unwrap())),
            (None, other) => panic!("{other:?} cannot stand inline"),
        }
    }
    names
}

/// The OpenAPI definition of a message, where it has one.
fn definition(message: &str) -> Option<String> {
    let names = [format!("io.k8s.api.{message}"), format!("io.k8s.apimachinery.pkg.apis.{message}")];
    names.into_iter().find(|name| Shapes::all().fields(name).is_some_and(|fields| !fields.is_empty()))
}

#[test]
fn every_field_of_every_kind_has_a_number_and_every_number_a_field() {
    for kind in Kinds::built_in().iter() {
        assert!(Messages::all().of_kind(&kind.api_version(), &kind.kind).is_some(), "{kind:?}");
    }
    let mut compared = 0;
    for (name, message) in Messages::all().iter() {
        let superseded = name.contains("v1beta");
        let Some(definition) = definition(name).filter(|_| !superseded) else { continue };
        compared += 1;
        let defined: BTreeSet<&str> = Shapes::all().fields(&definition).unwrap().keys().map(String::as_str).collect();
        let defined: BTreeSet<&str> = defined
            .into_iter()
            .filter(|field| !matches!(*field, "apiVersion" | "kind") || names(message).contains(field))
            .collect();
        assert_eq!(names(message), defined, "{name}");
    }
    assert!(compared > 200, "only {compared} messages have a definition");
}

#[test]
fn types_agree_with_the_definitions() {
    for (name, message) in Messages::all().iter() {
        let Some(definition) = definition(name).filter(|_| !name.contains("v1beta")) else { continue };
        for field in message.fields.values() {
            let Some(shape) = field.name.and_then(|n| Shapes::all().field(&definition, n)) else { continue };
            let container = match shape.container {
                Container::One => Form::One,
                Container::List => Form::List,
                Container::Map => Form::Map,
            };
            // `extra` of a user is a map of lists, which the definitions show as a map.
            if field.scalar == Scalar::Texts || field.scalar == Scalar::Raw {
                continue;
            }
            assert_eq!(field.form, container, "{name}.{:?}", field.name);
            let agrees = match &shape.holds {
                Holds::Object(definition) => {
                    matches!(field.scalar, Scalar::Message(message) if definition.ends_with(&format!(".{message}")))
                }
                Holds::Bytes => field.scalar == Scalar::Bytes,
                Holds::Time => matches!(field.scalar, Scalar::Time | Scalar::MicroTime),
                Holds::Quantity => field.scalar == Scalar::Quantity,
                Holds::IntOrString => field.scalar == Scalar::IntOrString,
                Holds::Plain => matches!(field.scalar, Scalar::Text | Scalar::Int | Scalar::Bool),
            };
            assert!(agrees, "{name}.{:?}: {:?} is {:?}", field.name, field.scalar, shape.holds);
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
