//! What a JSON Web Token says, and whether that is good now, before anybody looks at its signature. Pure.
//!
//! Source: `go-oidc` 2.3 with the checks of `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc`, whose words these
//! are.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::key::SigningAlgorithm;
use crate::auth::outside::places::NoPlace;

/// So many seconds before `nbf` a token is good: clocks differ. There is none for `exp`.
const NOT_BEFORE_LEEWAY: i64 = 60;
/// The issuer that leaves out the scheme of its own URL.
const GOOGLE: &str = "https://accounts.google.com";

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is no JWS in three parts, or uses an extension of the format.
    #[error("oidc: malformed jwt")]
    Malformed,
    /// Its claims are no JSON object with claims of the right types.
    #[error("oidc: failed to unmarshal claims")]
    Claims,
    /// It is for others.
    #[error("oidc: expected audience {expected} got {found}")]
    Audience {
        /// The one that is accepted, or `in` and those that are.
        expected: String,
        /// Its own.
        found: String,
    },
    /// Its time is over.
    #[error("oidc: token is expired (Token Expiry: {0})")]
    Expired(String),
    /// Its time has not begun.
    #[error("oidc: current time {now} before the nbf (not before) time: {not_before}")]
    TooEarly {
        /// Of this server.
        now: String,
        /// Of the token.
        not_before: String,
    },
    /// `none`, a symmetric one, or one that is not among those accepted.
    #[error("oidc: id token signed with unsupported algorithm, expected {expected} got {found:?}")]
    Algorithm {
        /// Those that are accepted.
        expected: String,
        /// Its own.
        found: String,
    },
    /// No key of the issuer signed it.
    #[error("failed to verify signature: failed to verify id token signature")]
    Signature,
    /// Whether one did cannot be told: the issuer's keys could not be fetched.
    #[error("failed to verify signature: fetching keys {0}")]
    Keys(String),
    /// Too many are compared with all keys at a time.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
}

/// A token that was read. Nothing in it is to be believed before its signature is verified.
pub struct JwtToken<'t> {
    /// What is signed: header and claims as they were sent.
    pub signed: &'t str,
    /// By the key.
    pub signature: Vec<u8>,
    /// As the header says, which may be none that is known.
    pub algorithm: String,
    /// `kid`; empty where the header names none.
    pub key_id: String,
    /// All that it claims.
    pub claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct JwsHeader {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions that must be understood (RFC 7515, section 4.1.11): none is.
    #[serde(default)]
    crit: Option<Value>,
}

/// The issuer that a text names which may be a token. It is not to be believed: it tells whom to ask alone.
pub fn untrusted_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let Issuer { iss } = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
    Some(if GOOGLE.strip_prefix("https://") == Some(&iss) { GOOGLE.to_owned() } else { iss })
}

impl<'t> JwtToken<'t> {
    /// Reads the compact form of a token.
    pub fn read(token: &'t str) -> Result<Self, VerifyError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(VerifyError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(VerifyError::Malformed)?;
        let decoded = |part: &str| BASE64.decode(part).map_err(|_| VerifyError::Malformed);
        let header: JwsHeader = serde_json::from_slice(&decoded(header)?).map_err(|_| VerifyError::Malformed)?;
        if header.crit.is_some() {
            return Err(VerifyError::Malformed);
        }
        let claims = serde_json::from_slice(&decoded(claims)?).map_err(|_| VerifyError::Claims)?;
        Ok(Self { signed, signature: decoded(signature)?, algorithm: header.alg, key_id: header.kid, claims })
    }

    /// The algorithm, if it is one of those that are accepted.
    pub fn accepted_algorithm(&self, accepted: &[SigningAlgorithm]) -> Result<SigningAlgorithm, VerifyError> {
        let found = SigningAlgorithm::of(&self.algorithm).filter(|found| accepted.contains(found));
        found.ok_or_else(|| VerifyError::Algorithm {
            expected: go_list(accepted.iter().map(|algorithm| algorithm.name())),
            found: self.algorithm.clone(),
        })
    }

    /// Whether it is for one of `audiences` and good at `now`.
    pub fn check(&self, audiences: &[String], now: Timestamp) -> Result<(), VerifyError> {
        let own = self.audiences()?;
        if !audiences.iter().any(|audience| own.contains(&audience.as_str())) {
            let expected = match audiences {
                [one] => format!("{one:?}"),
                many => format!("in {}", go_list(many.iter().map(String::as_str))),
            };
            return Err(VerifyError::Audience { expected, found: go_list(own.into_iter()) });
        }
        // A token without end has ended in 1970.
        let end = self.seconds("exp")?.unwrap_or_default();
        if end < now.as_second() {
            return Err(VerifyError::Expired(go_time(end)));
        }
        match self.seconds("nbf")? {
            Some(begin) if now.as_second().saturating_add(NOT_BEFORE_LEEWAY) < begin => {
                Err(VerifyError::TooEarly { now: go_time(now.as_second()), not_before: go_time(begin) })
            }
            _ => Ok(()),
        }
    }

    fn audiences(&self) -> Result<Vec<&str>, VerifyError> {
        match self.claims.get("aud") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![one]),
            Some(Value::Array(many)) => {
                many.iter().map(|one| one.as_str().ok_or(VerifyError::Claims)).collect::<Result<_, _>>()
            }
            Some(_) => Err(VerifyError::Claims),
        }
    }

    /// A moment in Unix seconds, which may be written as a fraction.
    fn seconds(&self, claim: &str) -> Result<Option<i64>, VerifyError> {
        match self.claims.get(claim) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => {
                let seconds = number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64));
                seconds.map(Some).ok_or(VerifyError::Claims)
            }
            Some(_) => Err(VerifyError::Claims),
        }
    }
}

/// As Go's `%q` writes a list.
fn go_list<'a>(list: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", list.map(|one| format!("{one:?}")).collect::<Vec<_>>().join(" "))
}

/// As Go's `%v` writes a moment in UTC.
fn go_time(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(header: &Value, claims: &Value) -> String {
        format!("{}.{}.AAAA", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
    }

    #[test]
    fn a_text_that_is_no_token_is_malformed() {
        let crit = token(&json!({"alg": "RS256", "crit": ["b64"], "b64": false}), &json!({}));
        for wrong in ["", "a", "a.b", "..", "a.b.c", "e30.e30.", "e30.e30.AA.AA", &crit] {
            assert!(JwtToken::read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(JwtToken::read(&token(&json!({"alg": "x"}), &json!([]))).err(), Some(VerifyError::Claims));
        assert_eq!(untrusted_issuer("a.b"), None);
        assert_eq!(untrusted_issuer(&token(&json!({}), &json!({"iss": "https://a"}))).as_deref(), Some("https://a"));
        assert_eq!(
            untrusted_issuer(&token(&json!({}), &json!({"iss": "accounts.google.com"}))).as_deref(),
            Some(GOOGLE)
        );
    }

    #[test]
    fn times_and_audiences_are_checked_as_in_kubernetes() {
        let now = Timestamp::from_second(1_000).unwrap();
        let checked = |claims: Value| {
            let text = token(&json!({"alg": "RS256"}), &claims);
            JwtToken::read(&text).unwrap().check(&["a".to_owned()], now).map_err(|error| error.to_string())
        };
        for good in [
            json!({"aud": "a", "exp": 1_000}),
            json!({"aud": ["b", "a"], "exp": 1_000.5, "nbf": 1_060}),
            json!({"aud": "a", "exp": 2_000, "nbf": null}),
        ] {
            assert_eq!(checked(good.clone()), Ok(()), "{good}");
        }
        for (bad, why) in [
            (json!({"exp": 2_000}), "oidc: expected audience \"a\" got []"),
            (json!({"exp": 2_000, "aud": ["b", "c"]}), "oidc: expected audience \"a\" got [\"b\" \"c\"]"),
            (json!({"aud": "a"}), "oidc: token is expired (Token Expiry: 1970-01-01 00:00:00 +0000 UTC)"),
            (json!({"aud": "a", "exp": 999}), "oidc: token is expired (Token Expiry: 1970-01-01 00:16:39 +0000 UTC)"),
            (
                json!({"aud": "a", "exp": 2_000, "nbf": 1_061}),
                "oidc: current time 1970-01-01 00:16:40 +0000 UTC before the nbf (not before) time: 1970-01-01 \
                 00:17:41 +0000 UTC",
            ),
            (json!({"aud": 5, "exp": 2_000}), "oidc: failed to unmarshal claims"),
            (json!({"aud": "a", "exp": "soon"}), "oidc: failed to unmarshal claims"),
        ] {
            assert_eq!(checked(bad.clone()), Err(why.to_owned()), "{bad}");
        }
        let text = token(&json!({"alg": "RS256"}), &json!({"exp": 2_000, "aud": "c"}));
        let refused = JwtToken::read(&text).unwrap().check(&["a".to_owned(), "b".to_owned()], now).unwrap_err();
        assert_eq!(refused.to_string(), "oidc: expected audience in [\"a\" \"b\"] got [\"c\"]");
    }

    #[test]
    fn an_algorithm_that_is_not_accepted_is_refused_by_its_name() {
        let accepted = [SigningAlgorithm::Rs256];
        for found in ["none", "None", "HS256", "HS512", "ES256", "", "rs256"] {
            let text = token(&json!({"alg": found}), &json!({}));
            let refused = JwtToken::read(&text).unwrap().accepted_algorithm(&accepted).unwrap_err();
            let why = format!("oidc: id token signed with unsupported algorithm, expected [\"RS256\"] got \"{found}\"");
            assert_eq!(refused.to_string(), why);
        }
        assert_eq!(SigningAlgorithm::ALL.map(|a| SigningAlgorithm::of(a.name()).unwrap()), SigningAlgorithm::ALL);
    }
}
