//! The three kinds of patch on stored objects. Nothing is stored, so that every patch meets the same objects.

use http::Method;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

use super::{Target, input, request};
use crate::fuzzing::fuzz;

#[test]
fn a_json_patch_is_applied_or_refused() {
    let target = Target::new();
    let operation = (
        prop::sample::select(&["add", "remove", "replace", "move", "copy", "test", "nonsense"][..]),
        place(),
        place(),
        input::value(),
    );
    fuzz((any::<Index>(), subresource(), vec(operation, 0..12)), |(which, subresource, operations)| {
        let (path, object) = which.get(&input::objects()).clone();
        let places = input::pointers(&object);
        let written = |(op, path, from, value): (&str, Pointer, Pointer, Value)| {
            let (path, from) = (path.pointer(&places), from.pointer(&places));
            json!({"op": op, "path": path, "from": from, "value": value})
        };
        let patch: Vec<Value> = operations.into_iter().map(written).collect();
        send(&target, &path, subresource, "application/json-patch+json", &Value::from(patch))
    });
}

#[test]
fn a_merge_patch_is_applied_or_refused() {
    let target = Target::new();
    fuzz((input::changed_object(), subresource()), |((path, patch), subresource)| {
        send(&target, &path, subresource, "application/merge-patch+json", &patch)
    });
}

#[test]
fn a_strategic_merge_patch_is_applied_or_refused() {
    let target = Target::new();
    fuzz((input::changed_object(), subresource()), |((path, patch), subresource)| {
        send(&target, &path, subresource, "application/strategic-merge-patch+json", &patch)
    });
}

fn send(
    target: &Target,
    path: &str,
    subresource: &str,
    content_type: &str,
    patch: &Value,
) -> Result<(), TestCaseError> {
    let uri = format!("{path}/web{subresource}?dryRun=All");
    target.check(&request(Method::PATCH, &uri, content_type, patch.to_string())).map(drop)
}

fn subresource() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => Just("/status"), 1 => Just("/scale")]
}

/// A JSON pointer: to something in the object, beside something, or nonsense.
#[derive(Clone, Debug)]
enum Pointer {
    In(Index),
    Below(Index, String),
    Any(String),
}

impl Pointer {
    fn pointer(&self, places: &[String]) -> String {
        match self {
            Self::In(index) => index.get(places).clone(),
            Self::Below(index, name) => format!("{}/{name}", index.get(places)),
            Self::Any(text) => text.clone(),
        }
    }
}

fn place() -> impl Strategy<Value = Pointer> {
    let name = prop_oneof![
        Just("-".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("01".to_owned()),
        (0..3_u8).prop_map(|index| index.to_string()),
        input::key()
    ];
    prop_oneof![
        4 => any::<Index>().prop_map(Pointer::In),
        3 => (any::<Index>(), name).prop_map(|(index, name)| Pointer::Below(index, name)),
        1 => "[a-z/~0-9]{0,10}".prop_map(Pointer::Any),
    ]
}
