//! The join token: who may ask for a node certificate, and which CA the joiner trusts.

use std::{fmt, str::FromStr};

/// `<id>.<secret>.<sha256 of the CA certificate's DER, in hex>`: six, sixteen and sixty-four characters.
///
/// The first two parts are a Kubernetes bootstrap token; the third pins the CA, so that nothing is sent to an impostor.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
    /// SHA-256 of the CA certificate's DER.
    pub ca_sha256: [u8; 32],
}

impl JoinToken {
    /// What goes into the `Authorization: Bearer` header.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [id, secret, pin] = parts[..] else { return Err(JoinTokenError::Parts { found: parts.len() }) };
        let is_token = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if id.len() != 6 || !is_token(id) {
            return Err(JoinTokenError::Part { part: "id", wanted: "6 characters of a-z and 0-9" });
        }
        if secret.len() != 16 || !is_token(secret) {
            return Err(JoinTokenError::Part { part: "secret", wanted: "16 characters of a-z and 0-9" });
        }
        let mut ca_sha256 = [0; 32];
        hex::decode_to_slice(pin, &mut ca_sha256)
            .map_err(|_| JoinTokenError::Part { part: "CA hash", wanted: "64 hexadecimal digits" })?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), ca_sha256 })
    }
}

/// Never shows the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}.…)", self.id)
    }
}

/// Why the text is no join token. Remedy: copy it whole from `fairlead token create`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// Mostly one that was cut while it was copied.
    #[error("a join token has three parts, id.secret.ca-hash, and this one has {found}")]
    Parts { found: usize },
    /// A part with the wrong length or alphabet.
    #[error("its {part} is not {wanted}")]
    Part { part: &'static str, wanted: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_bearer_part_and_its_pin() {
        let text = format!("abcdef.0123456789abcdef.{}", "ab".repeat(32));
        let token: JoinToken = text.parse().expect("a token");
        assert_eq!(token.bearer(), "abcdef.0123456789abcdef");
        assert_eq!(token.ca_sha256, [0xab; 32]);
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn a_token_that_is_cut_says_which_part() {
        assert_eq!("abcdef.0123456789abcdef".parse::<JoinToken>(), Err(JoinTokenError::Parts { found: 2 }));
        let short: Result<JoinToken, _> = "abcdef.0123.ff".parse();
        assert!(matches!(short, Err(JoinTokenError::Part { part: "secret", .. })));
    }
}
