//! The text of an answer without `metadata.managedFields`: of an object, of each item of a list, and of each object in
//! a Table. What is not looked at is copied, so that a long list takes no more memory than its text.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// JSON without managed fields.
///
/// # Errors
/// That it is no JSON.
pub fn without_managed_fields(text: &str) -> serde_json::Result<Box<RawValue>> {
    let mut out = Vec::with_capacity(text.len());
    write(text.trim(), Part::Answer, &mut out)?;
    // Members are copied as they are, so that this is the text that was read.
    let out = String::from_utf8(out).map_err(serde::de::Error::custom)?;
    RawValue::from_string(out)
}

/// What a text is of an answer.
#[derive(Clone, Copy)]
enum Part {
    /// An object, a list or a Table.
    Answer,
    Object,
    Metadata,
    /// Of a Table.
    Row,
    /// Has no managed fields.
    Other,
}

impl Part {
    /// What a member is; `None` where it is left out.
    fn member(self, name: &str) -> Option<Self> {
        match (self, name) {
            (Self::Metadata, "managedFields") => None,
            (Self::Answer | Self::Object, "metadata") => Some(Self::Metadata),
            (Self::Answer, "items") | (Self::Row, "object") => Some(Self::Object),
            (Self::Answer, "rows") => Some(Self::Row),
            _ => Some(Self::Other),
        }
    }
}

/// The members of an object, in their order.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de: 't, 't> Deserialize<'de> for Members<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReadMembers)
    }
}

struct ReadMembers;

impl<'de> Visitor<'de> for ReadMembers {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// Adds a part to `out`; of a list, each of its entries.
fn write(text: &str, part: Part, out: &mut Vec<u8>) -> serde_json::Result<()> {
    match (part, text.as_bytes().first()) {
        (Part::Answer | Part::Object | Part::Metadata | Part::Row, Some(b'{')) => {
            let Members(members) = serde_json::from_str(text)?;
            out.push(b'{');
            let kept = members.into_iter().filter_map(|(name, value)| Some((part.member(&name)?, name, value)));
            for (at, (part, name, value)) in kept.enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, &name)?;
                out.push(b':');
                write(value.get(), part, out)?;
            }
            out.push(b'}');
        }
        (Part::Object | Part::Row, Some(b'[')) => {
            let entries: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push(b'[');
            for (at, entry) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(entry.get(), part, out)?;
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn they_are_left_out_of_objects_lists_and_tables_and_nowhere_else() {
        let object = json!({"kind": "A", "metadata": {"name": "x\"\n", "managedFields": [{"a": 1}], "uid": "u"},
            "spec": {"metadata": {"managedFields": 1}}, "managedFields": null});
        let plain = json!({"kind": "A", "metadata": {"name": "x\"\n", "uid": "u"},
            "spec": {"metadata": {"managedFields": 1}}, "managedFields": null});
        for (given, expected) in [
            (object.clone(), plain.clone()),
            (json!({"items": [object, null, 1], "metadata": {}}), json!({"items": [plain, null, 1], "metadata": {}})),
            (
                json!({"rows": [{"cells": [1], "object": object}, {}], "columnDefinitions": []}),
                json!({"rows": [{"cells": [1], "object": plain}, {}], "columnDefinitions": []}),
            ),
            (json!({"items": {"metadata": 1}, "rows": null}), json!({"items": {"metadata": 1}, "rows": null})),
            (json!({}), json!({})),
            (json!(null), json!(null)),
        ] {
            let text = without_managed_fields(&given.to_string()).unwrap();
            assert_eq!(text.get(), expected.to_string());
        }
        assert!(without_managed_fields("{\"a\": ").is_err());
    }
}
