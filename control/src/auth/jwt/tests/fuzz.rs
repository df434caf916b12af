//! Tokens and keys from anybody: whatever they say, nothing panics.

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    auth::jwt::{
        key::VerificationKey,
        mapping::UserMapping,
        token::{JwtToken, untrusted_issuer},
    },
    fuzzing::fuzz,
};

/// JSON with the names that tokens and keys have.
fn json_text() -> impl Strategy<Value = Value> {
    let names =
        || select(vec!["iss", "aud", "exp", "nbf", "sub", "groups", "alg", "kid", "kty", "crv", "n", "e", "x", "y"]);
    let texts = select(vec!["", "RSA", "EC", "P-256", "P-521", "RS256", "none", "AQAB", "https://a", "a.b", "=", "é"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((names().prop_map(str::to_owned), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[test]
fn tokens_and_keys_of_anybody_are_read_or_refused() {
    let config = json!({"claimMappings": {
        "username": {"claim": "sub", "prefix": ""},
        "groups": {"expression": "claims.groups"},
        "uid": {"expression": "string(claims.exp)"},
    }});
    let config: JwtAuthenticatorConfiguration = serde_json::from_value(config).unwrap();
    let mapping = UserMapping::compile(&config).unwrap();
    let parts = (json_text(), json_text(), any::<Vec<u8>>());
    fuzz((parts, "[-_.A-Za-z0-9]{0,64}"), |((header, claims, signature), garbage)| {
        let encoded = |value: &Value| BASE64.encode(value.to_string());
        let whole = format!("{}.{}.{}", encoded(&header), encoded(&claims), BASE64.encode(&signature));
        let key = VerificationKey::of(&header);
        for text in [&whole, &garbage, &format!("{garbage}.{garbage}.{garbage}")] {
            drop(untrusted_issuer(text));
            let Ok(token) = JwtToken::read(text) else { continue };
            drop(token.check(&["a".to_owned()], Timestamp::UNIX_EPOCH));
            drop(mapping.user(&token.claims));
            if let Some(key) = &key {
                for algorithm in SigningAlgorithm::ALL {
                    prop_assert!(!key.verifies(algorithm, token.signed.as_bytes(), &token.signature));
                }
            }
        }
        Ok(())
    });
}
