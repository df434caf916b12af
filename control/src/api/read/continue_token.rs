//! Where the next page of a list begins, as text that is opaque to clients. In the form of `k8s.io/apiserver`.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContinueToken {
    /// The revision of all pages; `None` where that is gone, and the list goes on at the latest.
    pub revision: Option<u64>,
    /// Key of the last object of the page before.
    pub after: String,
    /// How many objects follow, where nothing is selected: counted once a list, since a count walks over all of them.
    pub left: Option<u64>,
}

/// Why a text is no token of this server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenDecodeError {
    #[error("continue key is not valid: illegal base64 data at input byte {0}")]
    Base64(usize),
    #[error("continue key is not valid")]
    Malformed,
    #[error("continue key is not valid: server does not recognize this encoded version {0}")]
    Version(String),
    #[error("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")]
    Revision,
    #[error("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)")]
    EmptyStart,
}

/// The JSON in the token.
#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    /// The key that the next page begins with: the last one and a zero byte, which no key comes before.
    #[serde(default)]
    start: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

const VERSION: &str = "meta.k8s.io/v1";
/// The longest token taken. Those of this program are shorter: a namespace and a name have 317 characters at most.
const MAX: usize = 1024;

impl ContinueToken {
    /// The text that clients are given.
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let text = Text { v: VERSION.to_owned(), rv, start: format!("{}\0", self.after), left: self.left };
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::json!(text).to_string())
    }

    /// Reads a token of a list of keys that start with `prefix`.
    pub fn decode(text: &str, prefix: &str) -> Result<Self, TokenDecodeError> {
        if text.len() > MAX {
            return Err(TokenDecodeError::Malformed);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| match error {
            base64::DecodeError::InvalidByte(at, _) => TokenDecodeError::Base64(at),
            _ => TokenDecodeError::Base64(text.len() / 4 * 4),
        })?;
        let text: Option<Text> = serde_json::from_slice(&bytes).ok();
        let Text { v, rv, start, left } = text.ok_or(TokenDecodeError::Malformed)?;
        if v != VERSION {
            return Err(TokenDecodeError::Version(v));
        }
        if rv == 0 {
            return Err(TokenDecodeError::Revision);
        }
        if start.is_empty() {
            return Err(TokenDecodeError::EmptyStart);
        }
        // A token of another namespace would skip objects, or all.
        let after =
            start.strip_suffix('\0').filter(|after| after.starts_with(prefix)).ok_or(TokenDecodeError::Malformed)?;
        Ok(Self { revision: u64::try_from(rv).ok(), after: after.to_owned(), left })
    }

    /// The same place in the latest state.
    pub fn at_latest(self) -> Self {
        Self { revision: None, left: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_others_are_told_apart() {
        let token = ContinueToken { revision: Some(7), after: "default/a".into(), left: Some(3) };
        assert_eq!(ContinueToken::decode(&token.encode(), "default/"), Ok(token.clone()));
        assert_eq!(ContinueToken::decode(&token.encode(), "other/"), Err(TokenDecodeError::Malformed));
        let latest = token.at_latest();
        assert_eq!(ContinueToken::decode(&latest.encode(), ""), Ok(latest));
        let of = |json: &str| ContinueToken::decode(&BASE64_URL_SAFE_NO_PAD.encode(json), "");
        assert_eq!(of(r#"{"v":"x","rv":1,"start":"a"}"#), Err(TokenDecodeError::Version("x".into())));
        assert_eq!(of(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a\u0000"}"#), Err(TokenDecodeError::Revision));
        assert_eq!(of(r#"{"v":"meta.k8s.io/v1","rv":1}"#), Err(TokenDecodeError::EmptyStart));
        assert_eq!(ContinueToken::decode(&"a".repeat(5000), ""), Err(TokenDecodeError::Malformed));
    }
}
