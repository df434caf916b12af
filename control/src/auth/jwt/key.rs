//! Public keys of token issuers (RFC 7517), and whether a signature is by one of them (RFC 7518).
//!
//! The algorithm that a token names must fit the key: an RSA key never serves as the secret of an HMAC, and there is no
//! `none`. Symmetric algorithms are not known here at all.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use p521::ecdsa::signature::Verifier;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::Value;

/// How a token is signed. These are all that Kubernetes accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// ECDSA with P-521 and SHA-512.
    Es512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
}

/// One public key.
#[derive(PartialEq, Eq)]
pub struct VerificationKey {
    /// `kid`; empty where the issuer names it not.
    pub id: String,
    material: KeyMaterial,
}

#[derive(PartialEq, Eq)]
enum KeyMaterial {
    /// Modulus and exponent, big-endian, without zeros before them.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point of P-256 or P-384, not compressed (SEC 1, section 2.3.3).
    Ec {
        curve: &'static Curve,
        point: Vec<u8>,
    },
    P521(Box<p521::ecdsa::VerifyingKey>),
}

#[derive(PartialEq, Eq)]
struct Curve {
    name: &'static str,
    algorithm: SigningAlgorithm,
    coordinate_bytes: usize,
}

const P256: Curve = Curve { name: "P-256", algorithm: SigningAlgorithm::Es256, coordinate_bytes: 32 };
const P384: Curve = Curve { name: "P-384", algorithm: SigningAlgorithm::Es384, coordinate_bytes: 48 };
const P521: Curve = Curve { name: "P-521", algorithm: SigningAlgorithm::Es512, coordinate_bytes: 66 };
const CURVES: [&Curve; 3] = [&P256, &P384, &P521];

impl SigningAlgorithm {
    /// All, in the order of their names.
    pub const ALL: [Self; 9] = [
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
    ];

    /// As `alg` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    /// The algorithm of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// For RSA, what `ring` calls it.
    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 | Self::Es384 | Self::Es512 => return None,
        })
    }
}

impl VerificationKey {
    /// Reads a JSON Web Key; nothing for one that signs no tokens: a symmetric one, one for encryption, another curve.
    pub fn of(jwk: &Value) -> Option<Self> {
        if jwk["use"].as_str().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |field: &str| BASE64.decode(jwk[field].as_str()?).ok();
        let material = match jwk["kty"].as_str()? {
            "RSA" => KeyMaterial::Rsa { n: without_zeros(bytes("n")?)?, e: without_zeros(bytes("e")?)? },
            "EC" => {
                let curve = CURVES.into_iter().find(|curve| jwk["crv"] == curve.name)?;
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != curve.coordinate_bytes || y.len() != curve.coordinate_bytes {
                    return None;
                }
                let point = [&[4], &x[..], &y[..]].concat();
                match curve.algorithm {
                    SigningAlgorithm::Es512 => {
                        KeyMaterial::P521(Box::new(p521::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok()?))
                    }
                    _ => KeyMaterial::Ec { curve, point },
                }
            }
            _ => return None,
        };
        Some(Self { id: jwk["kid"].as_str().unwrap_or_default().to_owned(), material })
    }

    /// Whether it can sign in this way.
    pub fn fits(&self, algorithm: SigningAlgorithm) -> bool {
        match &self.material {
            KeyMaterial::Rsa { .. } => algorithm.rsa().is_some(),
            KeyMaterial::Ec { curve, .. } => curve.algorithm == algorithm,
            KeyMaterial::P521(_) => algorithm == SigningAlgorithm::Es512,
        }
    }

    /// Whether `signature` is of `signed`, by this key and in this way. Costs up to 0.1 ms; with P-521 some more.
    pub fn verifies(&self, algorithm: SigningAlgorithm, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            KeyMaterial::Rsa { n, e } => algorithm.rsa().is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }),
            KeyMaterial::Ec { .. } if !self.fits(algorithm) => false,
            KeyMaterial::Ec { point, .. } => {
                let verified = match algorithm {
                    SigningAlgorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
                    _ => &ECDSA_P384_SHA384_FIXED,
                };
                UnparsedPublicKey::new(verified, point).verify(signed, signature).is_ok()
            }
            KeyMaterial::P521(key) => {
                algorithm == SigningAlgorithm::Es512
                    && p521::ecdsa::Signature::from_slice(signature).is_ok_and(|s| key.verify(signed, &s).is_ok())
            }
        }
    }
}

/// A number as `ring` takes it; nothing for 0.
fn without_zeros(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let first = bytes.iter().position(|byte| *byte != 0)?;
    bytes.get(first..).map(<[u8]>::to_vec)
}
