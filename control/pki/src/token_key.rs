//! The key that signs the tokens of ServiceAccounts: JSON Web Tokens (RFC 7519) with ES256.
//!
//! Decides how a token is signed and recognised; never what it says.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use sha2::{Digest, Sha256};

/// Signs tokens, and recognises those that it signed.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

/// The key is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The system gave no random numbers, or the key could not sign.
    #[error("cannot make or use a key to sign tokens")]
    Unspecified,
    /// It is no P-256 key as PKCS #8 in PEM.
    #[error("the key that signs tokens is not usable: {0}")]
    Malformed(String),
}

/// What stands before the point of a public P-256 key in its DER form (SubjectPublicKeyInfo, RFC 5480).
const PUBLIC_KEY_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl TokenKey {
    /// A new key, and its text as PEM.
    pub fn create() -> Result<(Self, String), TokenKeyError> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let der = der.map_err(|_| TokenKeyError::Unspecified)?;
        let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = pem::encode_config(&pem::Pem::new("PRIVATE KEY", der.as_ref()), lines);
        Ok((Self::of_der(der.as_ref())?, text))
    }

    /// Reads a key from PEM.
    pub fn load(text: &str) -> Result<Self, TokenKeyError> {
        let block = pem::parse(text).map_err(|error| TokenKeyError::Malformed(error.to_string()))?;
        Self::of_der(block.contents())
    }

    fn of_der(der: &[u8]) -> Result<Self, TokenKeyError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .map_err(|error| TokenKeyError::Malformed(error.to_string()))?;
        let id =
            BASE64.encode(Sha256::new().chain_update(PUBLIC_KEY_PREFIX).chain_update(pair.public_key()).finalize());
        Ok(Self { pair, id, random })
    }

    /// A token with these claims, which are JSON.
    pub fn sign(&self, claims: &str) -> Result<String, TokenKeyError> {
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.id);
        let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).map_err(|_| TokenKeyError::Unspecified)?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    /// The claims of a token that this key signed; `None` for any other text. Costs a verification, 0.1 ms.
    pub fn verified(&self, token: &str) -> Option<Vec<u8>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_, claims) = signed.split_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key());
        key.verify(signed.as_bytes(), &signature).ok()?;
        BASE64.decode(claims).ok()
    }

    /// The public key as a JSON Web Key (RFC 7517).
    pub fn public_jwk(&self) -> String {
        let point = self.pair.public_key().as_ref();
        // 0x04, and two numbers of 32 bytes: SEC 1, section 2.3.3.
        let coordinate = |from: usize| BASE64.encode(point.get(from..from.saturating_add(32)).unwrap_or_default());
        format!(
            r#"{{"use":"sig","kty":"EC","kid":"{}","crv":"P-256","alg":"ES256","x":"{}","y":"{}"}}"#,
            self.id,
            coordinate(1),
            coordinate(33)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_knows_its_own_tokens_and_no_others() {
        let (key, text) = TokenKey::create().unwrap();
        let token = key.sign(r#"{"sub":"a"}"#).unwrap();
        assert_eq!(TokenKey::load(&text).unwrap().verified(&token).unwrap(), br#"{"sub":"a"}"#);
        let (other, _) = TokenKey::create().unwrap();
        assert_eq!(other.verified(&token), None);
        let parts: Vec<&str> = token.split('.').collect();
        let forged = BASE64.encode(r#"{"sub":"b"}"#);
        let unsigned = BASE64.encode(r#"{"alg":"none"}"#);
        // What a reader who believes the header could take: another key, and the public one as a secret.
        let reheaded = [
            r#"{"alg":"HS256","kid":"ID"}"#,
            r#"{"alg":"ES256","kid":"another"}"#,
            r#"{"alg":"ES256","kid":"ID","jku":"https://example.com/keys"}"#,
            r#"{"alg":"ES256","kid":"ID","crit":["exp"]}"#,
        ]
        .map(|header| BASE64.encode(header.replace("ID", &key.id)));
        for header in reheaded {
            let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.pair.public_key().as_ref());
            let keyed = ring::hmac::sign(&secret, format!("{header}.{}", parts[1]).as_bytes());
            for signature in [parts[2].to_owned(), BASE64.encode(keyed)] {
                assert_eq!(key.verified(&format!("{header}.{}.{signature}", parts[1])), None, "{header}");
            }
        }
        for wrong in [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{unsigned}.{}.", parts[1]),
            format!("{unsigned}.{}.{}", parts[1], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}A"),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(key.verified(&wrong), None, "{wrong}");
        }
        assert!(TokenKey::load("nonsense").is_err());
        assert!(TokenKey::load("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
    }
}
