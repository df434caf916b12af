//! `FieldsV1`, the text of a set of fields: `{"f:spec":{"f:replicas":{}}}`.
//!
//! A node that has an empty object, or `.` among its fields, is a member. What is written here is in Kubernetes' order
//! and without spaces, so that equal sets have equal text.

use std::{borrow::Cow, fmt, num::ParseIntError};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use super::{
    path::{PathElement, Scalar},
    set::{Entry, FieldSet},
};

/// Reads a set. Elements of an unknown kind are left out, as in Kubernetes.
pub fn parse(text: &str) -> serde_json::Result<FieldSet<'_>> {
    let mut text = serde_json::Deserializer::from_str(text);
    let node = Reader.deserialize(&mut text)?;
    text.end()?;
    Ok(node.below)
}

/// Reads a set that was read as JSON before.
pub fn from_value(value: &Value) -> serde_json::Result<FieldSet<'_>> {
    Ok(Reader.deserialize(value)?.below)
}

/// A node without the element that leads to it.
struct Node<'a> {
    member: bool,
    below: FieldSet<'a>,
}

struct Reader;

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of fields")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Node { member: true, below: FieldSet::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<Entry<'de>> = Vec::new();
        let mut member = false;
        while let Some(key) = map.next_key_seed(KeyReader)? {
            if key == "." {
                member = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match element(key).map_err(A::Error::custom)? {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(element) => {
                    let Node { member, below } = map.next_value_seed(Self)?;
                    entries.push(Entry { element, member, below });
                }
            }
        }
        let member = member || entries.is_empty();
        Ok(Node { member, below: FieldSet::of_any(entries) })
    }
}

/// Reads a name without a copy, where its text stands without escapes.
struct KeyReader;

impl<'de> DeserializeSeed<'de> for KeyReader {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyReader {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text))
    }
}

/// Why a name stands for no element. The words are those of structured-merge-diff.
#[derive(Debug, thiserror::Error)]
enum ElementError {
    #[error("key must be 2 characters long:")]
    TooShort,
    #[error("missing colon: {0}")]
    MissingColon(String),
    #[error("{name}: {error}")]
    Json { name: String, error: serde_json::Error },
    #[error("{name}: {error}")]
    Index { name: String, error: ParseIntError },
}

/// The element that a name stands for; nothing if its kind is unknown.
fn element(name: Cow<'_, str>) -> Result<Option<PathElement<'_>>, ElementError> {
    let kind = match name.as_bytes() {
        [kind, b':', ..] => *kind,
        [] | [_] => return Err(ElementError::TooShort),
        _ => return Err(ElementError::MissingColon(name.into_owned())),
    };
    let rest = &name[2..];
    let json = |error| ElementError::Json { name: name.to_string(), error };
    Ok(Some(match kind {
        b'f' => PathElement::Field(match name {
            Cow::Borrowed(name) => Cow::Borrowed(&name[2..]),
            Cow::Owned(name) => Cow::Owned(name[2..].to_owned()),
        }),
        b'k' => {
            let fields: serde_json::Map<String, Value> = serde_json::from_str(rest).map_err(json)?;
            let fields = fields.into_iter().map(|(name, value)| (Cow::Owned(name), Scalar::owned(value)));
            let mut fields: Vec<(Cow<'_, str>, Scalar<'_>)> = fields.collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            PathElement::Key(fields)
        }
        b'v' => PathElement::Value(Scalar::owned(serde_json::from_str(rest).map_err(json)?)),
        b'i' => {
            PathElement::Index(rest.parse().map_err(|error| ElementError::Index { name: name.to_string(), error })?)
        }
        _ => return Ok(None),
    }))
}

/// The text of a set.
#[cfg(test)]
pub fn print(set: &FieldSet<'_>) -> String {
    let mut out = String::with_capacity(1024);
    print_to(&mut out, set);
    out
}

/// Puts the text of a set behind `out`.
pub fn print_to(out: &mut String, set: &FieldSet<'_>) {
    out.push('{');
    entries(out, set);
    out.push('}');
}

fn entries(out: &mut String, set: &FieldSet<'_>) {
    for (at, entry) in set.entries().iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push('"');
        name(out, &entry.element);
        out.push_str("\":{");
        if entry.member && !entry.below.is_empty() {
            out.push_str("\".\":{},");
        }
        entries(out, &entry.below);
        out.push('}');
    }
}

/// The name of an element, as the inside of a JSON string.
fn name(out: &mut String, element: &PathElement<'_>) {
    match element {
        PathElement::Field(name) => {
            out.push_str("f:");
            escaped(out, name);
        }
        PathElement::Key(fields) => {
            let mut inner = String::from("k:{");
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    inner.push(',');
                }
                quoted(&mut inner, name);
                inner.push(':');
                scalar(&mut inner, value);
            }
            inner.push('}');
            escaped(out, &inner);
        }
        PathElement::Value(value) => {
            let mut inner = String::from("v:");
            scalar(&mut inner, value);
            escaped(out, &inner);
        }
        PathElement::Index(at) => {
            out.push_str("i:");
            out.push_str(&at.to_string());
        }
    }
}

fn scalar(out: &mut String, value: &Scalar<'_>) {
    match value {
        Scalar::Text(text) => quoted(out, text),
        Scalar::Int(value) => out.push_str(&value.to_string()),
        Scalar::Float(value) => out.push_str(&Value::from(*value).to_string()),
        Scalar::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Scalar::Compound(value) => out.push_str(&value.to_string()),
        Scalar::Null => out.push_str("null"),
    }
}

/// A JSON string as Go's encoder writes it within a key: `<`, `>` and `&` are escaped, too.
fn quoted(out: &mut String, text: &str) {
    out.push('"');
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        escaped(out, text);
    } else {
        for c in text.chars() {
            match c {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => escaped(out, c.encode_utf8(&mut [0; 4])),
            }
        }
    }
    out.push('"');
}

/// The inside of a JSON string.
fn escaped(out: &mut String, text: &str) {
    // All bytes, so that many are looked at in one step.
    let is_plain = text.bytes().fold(true, |plain, b| plain & (b >= 0x20) & (b != b'"') & (b != b'\\'));
    if is_plain {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_text_is_read_and_written_unchanged() {
        for text in [
            "{}",
            r#"{"f:metadata":{"f:labels":{".":{},"f:app.kubernetes.io/name":{}}},"f:spec":{"f:replicas":{}}}"#,
            r#"{"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:ports":{".":{},"k:{\"containerPort\":9,\"protocol\":\"TCP\"}":{".":{}},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{}}}}}}"#,
            r#"{"f:metadata":{"f:finalizers":{".":{},"v:\"a/b\"":{},"v:\"quote\\\"\"":{}}}}"#,
        ] {
            let expected = text.replace(r#"{".":{}}"#, "{}");
            assert_eq!(print(&parse(text).unwrap()), expected);
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(print(&from_value(&value).unwrap()), expected);
        }
    }

    #[test]
    fn any_order_and_spelling_is_read_as_the_same_set() {
        let text = r#"{ "f:b" : {}, "k:{\"b\":1,\"a\":\"x\"}": {}, "f:a":{"f:z":{},"f:y":{}}, "x:what":{"f:q":{}}, "f:a":{".":{}} }"#;
        let canonical = r#"{"f:a":{".":{},"f:y":{},"f:z":{}},"f:b":{},"k:{\"a\":\"x\",\"b\":1}":{}}"#;
        assert_eq!(print(&parse(text).unwrap()), canonical);
    }

    #[test]
    fn a_long_set_in_any_order_is_read_in_no_time() {
        let names: Vec<String> = (0..100_000).rev().map(|n| format!("\"f:{n:06}\":{{}}")).collect();
        assert_eq!(parse(&format!("{{{}}}", names.join(","))).unwrap().len(), 100_000);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in [r#"{"a":{}}"#, r#"{"fx":{}}"#, r#"{"f:a":5}"#, r#"{"k:{":{}}"#, "[]", r#"{"i:x":{}}"#, "{"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(from_value(&json!({"f:a": "b"})).is_err());
    }

    #[test]
    fn keys_are_escaped_as_go_does() {
        let set = FieldSet::of_path(&[PathElement::Key(vec![("a".into(), Scalar::Text("<b>".into()))])]);
        assert_eq!(print(&set), r#"{"k:{\"a\":\"\\u003cb\\u003e\"}":{}}"#);
        assert_eq!(parse(&print(&set)).unwrap(), set);
    }
}
