//! JSON text with line breaks and indentation, for people: made from the text itself, since parsing a long list takes
//! ten times as long, and as many times its memory.

use memchr::memchr2;

const INDENT: &[u8] = b"  ";

/// Lays out a valid JSON text without spaces as Go's `MarshalIndent` does, with two spaces a level.
pub fn pretty(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len().saturating_mul(2));
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                let (text, after) = after.split_at(end_of_string(after));
                out.push(b'"');
                out.extend_from_slice(text);
                rest = after;
            }
            b'{' | b'[' => {
                out.push(byte);
                if let Some(end @ (b'}' | b']')) = after.first() {
                    out.push(*end);
                    rest = after.get(1..).unwrap_or_default();
                } else {
                    depth = depth.saturating_add(1);
                    break_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                break_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            other => out.push(other),
        }
    }
    out
}

/// How many bytes a string has left from `rest` on, with its closing quote.
fn end_of_string(rest: &[u8]) -> usize {
    let mut at = 0_usize;
    while let Some(found) = rest.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        let found = at.saturating_add(found);
        match rest.get(found) {
            // What is escaped is no end.
            Some(b'\\') => at = found.saturating_add(2),
            _ => return found.saturating_add(1),
        }
    }
    rest.len()
}

fn break_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    (0..depth).for_each(|_| out.extend_from_slice(INDENT));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| json!(number)),
            any::<f32>().prop_map(|number| json!(number)),
            any::<String>().prop_map(Value::String),
            "[\"\\\\{}:,\\[\\] \n]{0,6}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_a_serialiser_writes(value in value()) {
            let expected = serde_json::to_string_pretty(&value).expect("text");
            prop_assert_eq!(String::from_utf8(pretty(value.to_string().as_bytes())).expect("UTF-8"), expected.clone());
            prop_assert_eq!(String::from_utf8(pretty(expected.as_bytes())).expect("UTF-8"), expected, "laid out already");
        }

        #[test]
        fn any_bytes_come_to_an_end(bytes: Vec<u8>) {
            pretty(&bytes);
        }
    }
}
