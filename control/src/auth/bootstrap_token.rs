//! Join tokens: their text, the Secret that stands for one, and whether one is still valid.
//!
//! The text is `ID.SECRET` as in Kubernetes, with `.` and the SHA-256 of the CA's certificate behind it where it is
//! handed to a joiner. Never talks to the store.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use rand::RngExt;
use subtle::ConstantTimeEq;

use super::Identity;
use crate::identity::BOOTSTRAPPERS;

/// Namespace of the Secrets.
pub const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// `ID.SECRET`: 6 and 16 lower-case letters and digits.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

/// The text is no join token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a join token is 6 and 16 lower-case letters or digits with a dot between")]
pub struct MalformedToken;

impl BootstrapToken {
    /// A new token of the system's random numbers: 80 bits of secret.
    pub fn random() -> Self {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut rng = rand::rng();
        let mut text = |length: usize| -> String {
            (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
        };
        Self { id: text(6), secret: text(16) }
    }

    /// Name of the Secret in [`NAMESPACE`].
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }

    /// What a joiner is given: the token, and the CA that it should find.
    pub fn join_text(&self, ca_hash: &str) -> String {
        format!("{self}.{ca_hash}")
    }

    /// The Secret that makes this token good until `expiration`.
    pub fn to_secret(&self, expiration: Timestamp) -> Secret {
        let data = [
            ("token-id", self.id.clone()),
            ("token-secret", self.secret.clone()),
            ("expiration", expiration_text(expiration)),
            ("usage-bootstrap-authentication", "true".into()),
            ("usage-bootstrap-signing", "true".into()),
            ("auth-extra-groups", "system:bootstrappers:fairlead:node".into()),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(self.secret_name()),
                namespace: Some(NAMESPACE.into()),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.into()),
            data: Some(data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).collect()),
            ..Secret::default()
        }
    }

    /// Who the bearer of this token is, going by its Secret; `None` if the token is not good.
    pub fn identity(&self, secret: &Secret, now: Timestamp) -> Option<Identity> {
        let empty = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&empty);
        let field = |name: &str| data.get(name).and_then(|v| std::str::from_utf8(&v.0).ok());
        let good = secret.type_.as_deref() == Some(TYPE)
            && secret.metadata.deletion_timestamp.is_none()
            && field("token-id") == Some(self.id.as_str())
            && same(field("token-secret")?, &self.secret)
            && field("usage-bootstrap-authentication") == Some("true")
            && match field("expiration") {
                // A token without an end is one that somebody made by hand and meant so.
                None => !data.contains_key("expiration"),
                Some(text) => text.parse::<Timestamp>().is_ok_and(|end| now < end),
            };
        if !good {
            return None;
        }
        let mut groups = vec![BOOTSTRAPPERS.to_owned()];
        // Kubernetes lets a token add groups below this prefix only: it must not open more than joining.
        let extra = field("auth-extra-groups").unwrap_or_default().split(',').map(str::trim);
        groups.extend(extra.filter(|g| g.starts_with("system:bootstrappers:")).map(String::from));
        Some(Identity::authenticated(format!("system:bootstrap:{}", self.id), groups))
    }
}

/// When a token made now with this lifetime ends, in whole seconds.
pub fn expiration(now: Timestamp, lifetime: Duration) -> Timestamp {
    let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(Timestamp::MAX)
}

fn expiration_text(expiration: Timestamp) -> String {
    expiration.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Equality whose time does not tell how much of a guess was right.
fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

impl FromStr for BootstrapToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        let (id, secret) = text.split_once('.').ok_or(MalformedToken)?;
        let fits = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !fits(id, 6) || !fits(secret, 16) {
            return Err(MalformedToken);
        }
        Ok(Self { id: id.into(), secret: secret.into() })
    }
}

impl fmt::Display for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

/// Never shows the secret: this may end in a log.
impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootstrapToken({}.…)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_token_opens_the_door_until_it_expires() {
        let token = BootstrapToken::random();
        let parsed: BootstrapToken = token.to_string().parse().unwrap();
        let secret = token.to_secret(expiration(now(), Duration::from_secs(60)));
        let identity = parsed.identity(&secret, now()).unwrap();
        assert_eq!(identity.name, format!("system:bootstrap:{}", token.id));
        assert!(identity.is_in(BOOTSTRAPPERS) && !identity.is_in("system:masters"));
        assert!(parsed.identity(&secret, expiration(now(), Duration::from_secs(59))).is_some());
        assert!(parsed.identity(&secret, expiration(now(), Duration::from_secs(60))).is_none());
    }

    #[test]
    fn a_wrong_secret_another_type_or_a_forbidden_use_opens_nothing() {
        let token = BootstrapToken::random();
        let good = token.to_secret(expiration(now(), Duration::from_secs(60)));
        let other = BootstrapToken { id: token.id.clone(), secret: "0123456789abcdef".into() };
        assert!(other.identity(&good, now()).is_none());
        let with = |change: fn(&mut Secret)| {
            let mut secret = good.clone();
            change(&mut secret);
            token.identity(&secret, now())
        };
        assert!(with(|s| s.type_ = Some("Opaque".into())).is_none());
        assert!(with(|s| drop(s.data.as_mut().unwrap().remove("usage-bootstrap-authentication"))).is_none());
        assert!(
            with(|s| drop(s.data.as_mut().unwrap().insert("expiration".into(), ByteString(b"soon".into())))).is_none()
        );
        assert!(with(|s| drop(s.data.as_mut().unwrap().insert("expiration".into(), ByteString(vec![0xff])))).is_none());
    }

    #[test]
    fn a_token_cannot_add_the_group_of_masters() {
        let token = BootstrapToken::random();
        let mut secret = token.to_secret(expiration(now(), Duration::from_secs(60)));
        let groups = ByteString(b"system:masters,system:bootstrappers:x".into());
        secret.data.as_mut().unwrap().insert("auth-extra-groups".into(), groups);
        let identity = token.identity(&secret, now()).unwrap();
        assert!(!identity.is_in("system:masters") && identity.is_in("system:bootstrappers:x"));
    }

    #[test]
    fn only_the_form_of_a_token_is_taken() {
        for text in ["", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcde/.0123456789abcdef"] {
            assert_eq!(text.parse::<BootstrapToken>(), Err(MalformedToken), "{text}");
        }
    }
}
