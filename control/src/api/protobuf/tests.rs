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

/// The same objects, written by this program and read again: nothing is lost, and nothing is added.
#[test]
fn every_field_of_an_object_is_written() {
    for line in include_str!("full_objects.tsv").lines() {
        let (body, json) = line.split_once('\t').unwrap();
        let expected = object(&hex::decode(body).unwrap()).unwrap();
        let Some(written) = answer::whole(json.as_bytes()) else {
            assert_eq!(expected["kind"], "DeleteOptions", "{json:.80}");
            continue;
        };
        assert_eq!(object(&written).unwrap(), expected);
    }
}

/// `pod.Marshal()` and its kind of `k8s.io/api`, field by field where the order is the same.
#[test]
fn special_values_are_written_as_kubernetes_writes_them() {
    let types = Types::builtin();
    let encoded = |name: &str, json: Value| answer::message(types.by_name(name).unwrap(), json.to_string().as_bytes());
    let time = json!({"lastTransitionTime": "1970-01-01T00:00:05Z", "type": "é", "observedGeneration": -1});
    let time = encoded("io.k8s.apimachinery.pkg.apis.meta.v1.Condition", time).unwrap();
    assert_eq!(hex::encode(time), "220408051000".to_owned() + "0a02c3a9" + "18ffffffffffffffffff01");
    let port = json!({"port": 80, "targetPort": "web", "nodePort": 0});
    let port = encoded("io.k8s.api.core.v1.ServicePort", port).unwrap();
    assert_eq!(hex::encode(port), "1850".to_owned() + "2209080110001a03776562" + "2800");
    let secret = json!({"data": {"k": "AAE="}, "immutable": false, "type": null, "unknown": [{}]});
    let secret = encoded("io.k8s.api.core.v1.Secret", secret).unwrap();
    assert_eq!(hex::encode(secret), "12070a016b12020001".to_owned() + "2800");
    let requests = json!({"limits": {"cpu": 1, "memory": "1Gi"}});
    let requests = encoded("io.k8s.api.core.v1.ResourceRequirements", requests).unwrap();
    let expected = "0a0a0a0363707512030a0131".to_owned() + "0a0f0a066d656d6f727912050a03314769";
    assert_eq!(hex::encode(requests), expected);
    let bad = encoded("io.k8s.api.core.v1.ServicePort", json!({"port": "x"}));
    assert!(bad.is_err());
}

/// What is one of two types in JSON has a field for each in protobuf.
#[test]
fn schemas_of_custom_resources_survive() {
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
        "type": "object", "default": {"a": [1, null]}, "enum": [1, "x"],
        "additionalProperties": false,
        "properties": {
            "list": {"items": {"type": "string"}}, "tuple": {"items": [{"type": "string"}, {"type": "integer"}]},
            "map": {"additionalProperties": {"type": "string"}}, "free": {"additionalItems": true},
        },
        "dependencies": {"a": ["b", "c"], "d": {"type": "object"}},
    }}}]}});
    let written = answer::whole(definition.to_string().as_bytes()).unwrap();
    let read = object(&written).unwrap();
    let schema = |object: &Value| object["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    assert_eq!(schema(&read), schema(&definition));
}

/// Fields of messages within messages stand in the outer object in JSON.
#[test]
fn fields_of_embedded_messages_survive() {
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "spec": {"matchConstraints": {"resourceRules": [{"resourceNames": ["a"], "apiGroups": ["apps"],
            "apiVersions": ["v1", "v2"], "operations": ["CREATE"], "resources": ["*"], "scope": "Namespaced"}]}}});
    let written = answer::whole(policy.to_string().as_bytes()).unwrap();
    assert_eq!(object(&written).unwrap(), policy);
}

/// Messages of more than 127 bytes need a longer length, at every level.
#[test]
fn long_messages_have_long_lengths() {
    for length in [100, 126, 127, 128, 200, 16_380, 16_384, 70_000] {
        let text = "x".repeat(length);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"annotations": {"a": text}},
            "data": {"b": text}});
        let written = answer::whole(map.to_string().as_bytes()).unwrap();
        assert_eq!(object(&written).unwrap(), map, "{length}");
    }
}

/// The metadata of a list, and its items: a list of built-in objects, as clients read it.
pub fn read_list(body: &[u8]) -> (Value, Vec<Value>) {
    let unknown = Unknown::read(body).unwrap();
    let types = Types::builtin();
    let read = |id: Option<crate::schema::TypeId>, bytes: &[u8]| {
        let mut out = Map::new();
        decode::Reader::new(types).message(types.object(id.unwrap()).unwrap(), bytes, &mut out).unwrap();
        Value::Object(out)
    };
    let item = match unknown.kind.strip_suffix("List").unwrap() {
        "PartialObjectMetadata" => types.of_kind("meta.k8s.io/v1", "Unstructured"),
        kind => types.of_kind(&unknown.api_version, kind),
    };
    let (mut metadata, mut items) = (Value::Null, Vec::new());
    for field in wire::fields(unknown.raw) {
        match field.unwrap() {
            (1, wire::Wire::Bytes(bytes)) => metadata = read(types.of_kind("meta.k8s.io/v1", "ListMeta"), bytes),
            (2, wire::Wire::Bytes(bytes)) => items.push(read(item, bytes)),
            other => panic!("{other:?}"),
        }
    }
    (metadata, items)
}

/// One frame of a watch: its type, what kind of object it has, and the object. Takes it from `bytes`.
pub fn read_frame(bytes: &mut &[u8]) -> (String, String, Value) {
    let (length, rest) = bytes.split_first_chunk::<4>().unwrap();
    let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
    *bytes = rest;
    let (mut event, mut whole) = (String::new(), Vec::new());
    for field in wire::fields(frame) {
        match field.unwrap() {
            (1, wire::Wire::Bytes(text)) => event = String::from_utf8(text.to_vec()).unwrap(),
            (2, wire::Wire::Bytes(raw)) => {
                let Some(Ok((1, wire::Wire::Bytes(object)))) = wire::fields(raw).next() else { panic!("no object") };
                whole = object.to_vec();
            }
            other => panic!("{other:?}"),
        }
    }
    let unknown = Unknown::read(&whole).unwrap();
    let types = Types::builtin();
    let id = match unknown.kind.as_str() {
        "Status" => types.of_kind("meta.k8s.io/v1", "Status"),
        "PartialObjectMetadata" => types.of_kind("meta.k8s.io/v1", "Unstructured"),
        kind => types.of_kind(&unknown.api_version, kind),
    };
    let mut object = Map::new();
    decode::Reader::new(types).message(types.object(id.unwrap()).unwrap(), unknown.raw, &mut object).unwrap();
    (event, unknown.kind, Value::Object(object))
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
