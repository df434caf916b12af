//! The PKCS #10 request in a CertificateSigningRequest: it is one, and whoever made it has the private key.

use base64::{Engine, prelude::BASE64_STANDARD};
use x509_parser::{
    certification_request::X509CertificationRequest,
    error::X509Error,
    oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519},
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// RSA keys of fewer bits are not verified by our library.
const LEAST_RSA_BITS: usize = 2048;

/// Why a text, a PEM block in Base64, is no such request. The words are Go's, where it tells what is wrong.
pub fn wrong(encoded: &str) -> Option<String> {
    let text = BASE64_STANDARD.decode(encoded).unwrap_or_default();
    let block = pem::parse(text).ok().filter(|block| block.tag() == "CERTIFICATE REQUEST");
    let Some(block) = block else { return Some("PEM block type must be CERTIFICATE REQUEST".to_owned()) };
    let Ok((rest, request)) = X509CertificationRequest::from_der(block.contents()) else {
        return Some("asn1: structure error: malformed certificate request".to_owned());
    };
    if !rest.is_empty() {
        return Some("asn1: syntax error: trailing data".to_owned());
    }
    let key = &request.certification_request_info.subject_pki;
    match request.verify_signature() {
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => None,
        Err(_) if is_small_rsa(key) => None,
        Err(_) if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY => {
            Some("x509: ECDSA verification failure".to_owned())
        }
        Err(_) if key.algorithm.algorithm == OID_SIG_ED25519 => Some("x509: Ed25519 verification failure".to_owned()),
        Err(_) => Some("crypto/rsa: verification error".to_owned()),
    }
}

fn is_small_rsa(key: &SubjectPublicKeyInfo<'_>) -> bool {
    matches!(key.parsed(), Ok(PublicKey::RSA(key)) if key.key_size() < LEAST_RSA_BITS)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};

    use super::*;

    fn der(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    }

    fn wrong_der(tag: &str, der: &[u8]) -> Option<String> {
        wrong(&BASE64_STANDARD.encode(pem::encode(&pem::Pem::new(tag, der))))
    }

    #[test]
    fn a_request_shows_that_its_maker_has_the_key() {
        const TAG: &str = "CERTIFICATE REQUEST";
        for (algorithm, failure) in [
            (&PKCS_ECDSA_P256_SHA256, "x509: ECDSA verification failure"),
            (&PKCS_ED25519, "x509: Ed25519 verification failure"),
        ] {
            let mut der = der(algorithm);
            assert_eq!(wrong_der(TAG, &der), None);
            // The end of the signature.
            let last = der.len() - 1;
            der[last] ^= 1;
            assert_eq!(wrong_der(TAG, &der).unwrap(), failure);
        }
        let good = der(&PKCS_ED25519);
        let none = "PEM block type must be CERTIFICATE REQUEST";
        assert_eq!((wrong_der("X", &good).unwrap(), wrong("").unwrap()), (none.to_owned(), none.to_owned()));
        assert!(wrong_der(TAG, &good[1..]).unwrap().starts_with("asn1: structure error"));
        assert_eq!(wrong_der(TAG, &[&*good, &[0]].concat()).unwrap(), "asn1: syntax error: trailing data");
    }
}
