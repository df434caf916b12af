//! Objects as JSON, YAML and protobuf: bent in their fields, and in the bytes that they are written in.

use http::Method;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

use super::{Target, input, request};
use crate::fuzzing::fuzz;

#[test]
fn a_changed_object_is_stored_or_refused_with_a_reason() {
    let target = Target::new();
    fuzz((input::changed_object(), select(&["Strict", "Warn", "Ignore"][..])), |((path, object), validation)| {
        let mut object = object;
        // A free name, so that the object is not refused for the one it has.
        if object["metadata"]["name"] == "web" || object["metadata"]["name"] == "old" {
            object["metadata"]["name"] = "other".into();
        }
        let uri = format!("{path}?fieldValidation={validation}");
        let (code, stored) = target.check(&request(Method::POST, &uri, "application/json", object.to_string()))?;
        if code != 201 {
            return Ok(());
        }
        let name = stored["metadata"]["name"].as_str().unwrap_or_default();
        let table = request(Method::GET, &format!("{path}/{name}"), "application/json", "");
        prop_assert_eq!(target.check(&table)?.0, 200);
        let mut gone = stored.clone();
        gone["metadata"]["finalizers"] = Value::Null;
        target.check(&request(Method::PUT, &format!("{path}/{name}"), "application/json", gone.to_string()))?;
        target.check(&request(
            Method::DELETE,
            &format!("{path}/{name}?gracePeriodSeconds=0"),
            "application/json",
            "",
        ))?;
        Ok(())
    });
}

#[test]
fn json_in_pieces_is_refused() {
    let target = Target::new();
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\u0000",
        "\\ud800",
        "\"apiVersion\":\"v1\"",
        "\"kind\":\"ConfigMap\"",
        "null",
        "\"metadata\":{\"name\":\"a\"}",
        "\"data\":",
        "1e999",
        "-0",
        "18446744073709551616",
        "true",
        " ",
        "\u{feff}",
        "\u{e9}",
    ];
    fuzz(pieces(PIECES), |text| {
        let uri = "/api/v1/namespaces/default/configmaps?dryRun=All";
        target.check(&request(Method::POST, uri, "application/json", text)).map(drop)
    });
}

#[test]
fn yaml_in_pieces_is_refused_or_read() {
    let target = Target::new();
    const PIECES: &[&str] = &[
        "apiVersion: v1\n",
        "kind: ConfigMap\n",
        "metadata: {name: a}\n",
        "data:\n",
        "  a: ",
        "&a ",
        "*a",
        "- ",
        "\n",
        "  ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "? ",
        "|\n",
        ">-\n",
        "!!binary ",
        "!!int ",
        "!x ",
        "'",
        "\"",
        "%YAML 1.2\n",
        "---\n",
        "...\n",
        "<<: *a\n",
        "\t",
        "# c\n",
        "\u{feff}",
        "x: &b [*b, *b]\n",
        "1e400",
        "0x",
        ".nan",
        "~",
        "\u{0}",
    ];
    fuzz(pieces(PIECES), |text| {
        let uri = "/api/v1/namespaces/default/configmaps?dryRun=All";
        target.check(&request(Method::POST, uri, "application/yaml", text)).map(drop)
    });
}

/// Pieces in any order, one of them perhaps so often that a reader without a limit recurses too deep.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = || select(pieces);
    let often = prop_oneof![4 => Just(1_usize), 1 => 2..200_usize, 1 => Just(50_000)];
    (vec(piece(), 0..16), piece(), piece(), often, vec(piece(), 0..8)).prop_map(|(start, one, two, times, end)| {
        [start.concat(), [one, two].concat().repeat(times), end.concat()].concat()
    })
}

#[test]
fn protobuf_of_any_shape_is_read_or_refused() {
    let target = Target::new();
    const KINDS: &[(&str, &str, &str)] = &[
        ("v1", "ConfigMap", "/api/v1/namespaces/default/configmaps"),
        ("v1", "Pod", "/api/v1/namespaces/default/pods"),
        ("v1", "Service", "/api/v1/namespaces/default/services"),
        ("apps/v1", "Deployment", "/apis/apps/v1/namespaces/default/deployments"),
        ("coordination.k8s.io/v1", "Lease", "/apis/coordination.k8s.io/v1/namespaces/default/leases"),
    ];
    fuzz((select(KINDS), message(), vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)), |(kind, raw, bends)| {
        let (api_version, kind, path) = kind;
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        let mut body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, &raw)].concat();
        for (at, byte) in bends {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let uri = format!("{path}?dryRun=All");
        target.check(&request(Method::POST, &uri, "application/vnd.kubernetes.protobuf", body)).map(drop)
    });
}

/// A message whose fields have any number and type, nested as real ones are.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let name = "[a-z]{1,4}".prop_map(String::into_bytes);
    let leaf = prop_oneof![vec(any::<u8>(), 0..12), name];
    leaf.prop_recursive(6, 40, 6, |inner| {
        let one = (1..30_u64, prop_oneof![3 => inner.prop_map(Ok), 1 => any::<u64>().prop_map(Err)]);
        vec(one, 0..6).prop_map(|fields| {
            let written = |(number, value): (u64, Result<Vec<u8>, u64>)| match value {
                Ok(bytes) => field(number, &bytes),
                Err(number_value) => [varint(number << 3), varint(number_value)].concat(),
            };
            fields.into_iter().flat_map(written).collect()
        })
    })
}

/// A length-delimited field.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
