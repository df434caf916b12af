//! Answers to clients in process. They write whole objects without `metadata.managedFields`, which keeps the account as
//! it is, and never look at it: reading it would be half the work of reading a small object.

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;

use crate::store::{MANAGED_FIELDS, RESOURCE_VERSION};

/// The answer with the accounts left out of all its objects.
pub fn without_managers(response: Response<Body>) -> Response<Body> {
    response.map(|body| Body::new(body.map_frame(|frame| frame.map_data(strip))))
}

/// Leaves out each `"managedFields":[…],` before a resource version. These bytes stand nowhere else: within a JSON
/// string the quotes would be escaped. What is cut in two by the end of a frame stays.
fn strip(text: Bytes) -> Bytes {
    let Some(first) = next(&text, 0) else { return text };
    let mut out = Vec::with_capacity(text.len());
    let (mut copied, mut at) = (0, Some(first));
    while let Some(start) = at {
        let list = start + MANAGED_FIELDS.len();
        let end = end_of_list(&text, list);
        match end.filter(|end| {
            text[*end..].strip_prefix(b",").is_some_and(|rest| rest.starts_with(RESOURCE_VERSION.as_bytes()))
        }) {
            Some(end) => {
                out.extend_from_slice(&text[copied..start]);
                copied = end + 1;
                at = next(&text, copied);
            }
            None => at = next(&text, list),
        }
    }
    out.extend_from_slice(&text[copied..]);
    out.into()
}

/// Where the next list of managers begins.
fn next(text: &[u8], from: usize) -> Option<usize> {
    let name = MANAGED_FIELDS.as_bytes();
    // The letter is rarer than the quote before it.
    let mut at = from + 1;
    loop {
        at += text.get(at..)?.iter().position(|byte| *byte == b'm')?;
        if text[at - 1..].starts_with(name) {
            return Some(at - 1);
        }
        at += 1;
    }
}

/// The place behind a JSON list that begins at `at`.
fn end_of_list(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_string = false;
    loop {
        match (text.get(at)?, in_string) {
            (b'\\', true) => at += 1,
            (b'"', _) => in_string = !in_string,
            (b'[' | b'{', false) => depth += 1,
            (b']' | b'}', false) => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_left_out_and_nothing_else() {
        let stripped = |text: &str| String::from_utf8(strip(Bytes::copy_from_slice(text.as_bytes())).to_vec()).unwrap();
        let object = |managers: &str| {
            format!(
                r#"{{"metadata":{{"name":"managedFields","x":"\"managedFields\":[",{managers}"resourceVersion":"1"}}}}"#
            )
        };
        let managers = r#""managedFields":[{"manager":"a]\"","fieldsV1":{"f:x":{}}}],"#;
        let (with, without) = (object(managers), object(""));
        assert_eq!(stripped(&format!("[{with},{with}]")), format!("[{without},{without}]"));
        assert_eq!(stripped(&without), without);
        let cut = &with[..with.len() - 30];
        assert_eq!(stripped(cut), cut, "half of it is not understood");
        let elsewhere = r#"{"data":{"managedFields":[1,2]}}"#;
        assert_eq!(stripped(elsewhere), elsewhere);
    }
}
