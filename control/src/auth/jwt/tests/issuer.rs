//! An issuer of tokens on the loopback, with TLS, and the keys by which it signs.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64},
};
use p521::ecdsa::signature::Signer;
use parking_lot::Mutex;
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair},
};
use serde_json::{Value, json};

use crate::{auth::jwt::key::SigningAlgorithm, webhook::tests::TestServer};

/// A key of an issuer, with the name that it has.
pub struct TestKey {
    id: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(SigningAlgorithm, Box<EcdsaKeyPair>),
    P521(Box<p521::ecdsa::SigningKey>),
}

impl TestKey {
    /// A key that can sign in this way.
    pub fn new(id: &str, algorithm: SigningAlgorithm) -> Self {
        let random = SystemRandom::new();
        let ec = |how: &'static signature::EcdsaSigningAlgorithm| {
            let der = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
            Pair::Ec(algorithm, Box::new(EcdsaKeyPair::from_pkcs8(how, der.as_ref(), &random).unwrap()))
        };
        let pair = match algorithm {
            SigningAlgorithm::Es256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            SigningAlgorithm::Es384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            SigningAlgorithm::Es512 => {
                let mut scalar = [7; 66];
                scalar[0] = 0;
                Pair::P521(Box::new(p521::ecdsa::SigningKey::from_slice(&scalar).unwrap()))
            }
            // Nobody but tests has it.
            _ => {
                let der = pem::parse(include_str!("rsa_key.pem")).unwrap();
                Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(der.contents()).unwrap()))
            }
        };
        Self { id: id.to_owned(), pair }
    }

    /// As the issuer publishes it.
    pub fn jwk(&self) -> Value {
        let point = |bytes: &[u8], crv: &str| {
            let (x, y) = bytes[1..].split_at((bytes.len() - 1) / 2);
            json!({"kty": "EC", "crv": crv, "x": BASE64.encode(x), "y": BASE64.encode(y)})
        };
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({"kty": "RSA", "n": BASE64.encode(n), "e": BASE64.encode(e)})
            }
            Pair::Ec(SigningAlgorithm::Es256, pair) => point(pair.public_key().as_ref(), "P-256"),
            Pair::Ec(_, pair) => point(pair.public_key().as_ref(), "P-384"),
            Pair::P521(pair) => point(pair.verifying_key().to_sec1_point(false).as_bytes(), "P-521"),
        };
        jwk["kid"] = self.id.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token with these claims, signed in this way.
    pub fn token(&self, algorithm: SigningAlgorithm, claims: &Value) -> String {
        let header = json!({"alg": algorithm.name(), "kid": self.id, "typ": "JWT"});
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let how: &dyn signature::RsaEncoding = match algorithm {
                    SigningAlgorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
                    SigningAlgorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    SigningAlgorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    SigningAlgorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    SigningAlgorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(how, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Pair::Ec(_, pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::P521(pair) => {
                let signature: p521::ecdsa::Signature = pair.sign(signed.as_bytes());
                signature.to_bytes().to_vec()
            }
        };
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

/// An issuer that can be away, and change its keys.
pub struct TestIssuer {
    server: TestServer,
    /// `https://localhost:…`
    pub url: String,
    keys: Arc<Mutex<Vec<Value>>>,
    is_away: Arc<AtomicBool>,
}

impl TestIssuer {
    /// With these keys.
    pub async fn start(keys: &[&TestKey]) -> Self {
        let (known, is_away) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let own = Arc::new(OnceLock::<String>::new());
        let (shown, away, url) = (known.clone(), is_away.clone(), own.clone());
        let answering = Arc::new(move |path: String, _| {
            let url = url.get().cloned().unwrap_or_default();
            let answer = match &*path {
                _ if away.load(Ordering::SeqCst) => (503, json!("away")),
                "/.well-known/openid-configuration" => (200, json!({"issuer": url, "jwks_uri": format!("{url}/keys")})),
                "/other" => (200, json!({"issuer": "https://other", "jwks_uri": format!("{url}/keys")})),
                "/keys" => (200, json!({"keys": shown.lock().clone()})),
                _ => (404, json!("nothing")),
            };
            let answer: futures::future::BoxFuture<'static, (u16, Value)> = Box::pin(std::future::ready(answer));
            answer
        });
        let server = TestServer::start(&["localhost"], answering).await;
        let url = format!("https://localhost:{}", server.port);
        own.set(url.clone()).unwrap();
        let issuer = Self { server, url, keys: known, is_away };
        issuer.publish(keys);
        issuer
    }

    /// Has these keys from now on, and a symmetric one and one for encryption, which sign nothing.
    pub fn publish(&self, keys: &[&TestKey]) {
        let mut all: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        all.push(json!({"kty": "oct", "kid": "symmetric", "k": BASE64.encode("secret")}));
        all.push(json!({"kty": "RSA", "use": "enc", "kid": "encryption", "n": "AQAB", "e": "AQAB"}));
        *self.keys.lock() = all;
    }

    /// Answers nothing, or again.
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    /// How often its keys were fetched.
    pub fn fetches(&self) -> usize {
        self.server.bodies("/keys").len()
    }

    /// Its authority, as PEM.
    pub fn authority(&self) -> String {
        String::from_utf8(BASE64_STANDARD.decode(&self.server.bundle).unwrap()).unwrap()
    }

    /// What a configuration says of it: names are `sub` with `oidc:` before it.
    pub fn configuration(&self) -> Value {
        json!({
            "issuer": {"url": self.url, "audiences": ["fairlead"], "certificateAuthority": self.authority()},
            "claimMappings": {
                "username": {"claim": "sub", "prefix": "oidc:"},
                "groups": {"claim": "groups", "prefix": "oidc:"},
            },
        })
    }

    /// The claims of a good token.
    pub fn claims(&self) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({"iss": self.url, "aud": "fairlead", "sub": "jane", "groups": ["dev"], "exp": now + 3600, "iat": now})
    }
}

/// Writes an `AuthenticationConfiguration` with these authenticators.
pub fn write_configuration(directory: &Path, jwt: &[Value]) -> PathBuf {
    let path = directory.join("authentication.yaml");
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": jwt});
    std::fs::write(&path, file.to_string()).unwrap();
    path
}
