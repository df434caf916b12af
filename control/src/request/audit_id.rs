//! The id of one request, in every line that is logged about it and in its answer's `Audit-ID`, as Kubernetes has it.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header of request and answer.
pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// The longest id that is taken from a client.
const MAX_LEN: usize = 64;

/// The id of one request: the client's, if it sent one, or else a random one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditId(HeaderValue);

impl AuditId {
    /// The id of a request with these headers. Ids that are long or hold anything but letters, digits, `-`, `_` and `.`
    /// are not taken: they are logged.
    pub fn of(headers: &HeaderMap) -> Self {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let sent = headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= MAX_LEN);
        match sent.filter(|id| id.as_bytes().iter().all(plain)) {
            Some(id) => Self(id.clone()),
            None => Self::random(),
        }
    }

    /// The value of the answer's header.
    pub fn into_header(self) -> HeaderValue {
        self.0
    }

    fn random() -> Self {
        let mut buffer = Uuid::encode_buffer();
        let text = Uuid::new_v4().as_hyphenated().encode_lower(&mut buffer);
        Self(HeaderValue::from_str(text).expect("a UUID is visible ASCII"))
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_kept_if_it_is_harmless() {
        let of = |id: &str| {
            let headers = HeaderMap::from_iter([(AUDIT_ID, HeaderValue::from_str(id).unwrap())]);
            AuditId::of(&headers).to_string()
        };
        assert_eq!(of("a-1"), "a-1");
        for bad in ["", "a b", "a\tb", &"a".repeat(65)] {
            assert_ne!(of(bad), bad);
            assert_eq!(of(bad).len(), 36);
        }
        assert_ne!(AuditId::of(&HeaderMap::new()), AuditId::of(&HeaderMap::new()));
    }
}
