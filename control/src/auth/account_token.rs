//! Tokens of ServiceAccounts: what one says, who issues it, and whether it is still good.
//!
//! A token is good as long as its account and the pod, Secret or node that it is bound to are there, each the very one
//! that it was issued for. So nothing has to be revoked: what is deleted takes its tokens with it.
//!
//! Source: `pkg/serviceaccount` of Kubernetes, whose words these are.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    pki::{TokenKey, TokenKeyError},
    secret_token::{self, SecretClaims},
    verified_tokens::VerifiedTokens,
};
use crate::{
    audit::current,
    controllers::TokenOf,
    identity::{Identity, service_account_user},
    store::{Object, Snapshot},
};

/// For so many seconds a token holds before its beginning and after its end, and after the deletion of what it is bound
/// to was asked for: clocks differ. Source: `jwt.DefaultLeeway`.
const LEEWAY: i64 = 60;

/// Why a token is not good now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountTokenError {
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("service account token is not valid yet")]
    TooEarly,
    /// No clock can be that far ahead.
    #[error("service account token is issued in the future")]
    FromTheFuture,
    /// Its account is not there.
    #[error("serviceaccounts {0:?} not found")]
    NoAccount(String),
    /// Another account has that name now.
    #[error("service account UID ({found}) does not match claim ({claimed})")]
    OtherAccount {
        /// Of the one that is there.
        found: String,
        /// Of the one that it was issued for.
        claimed: String,
    },
    /// Its account was deleted.
    #[error("service account {namespace}/{name} has been deleted")]
    AccountDeleted {
        /// Of the account.
        namespace: String,
        /// Of the account.
        name: String,
    },
    /// What it is bound to is gone.
    #[error("service account token has been invalidated")]
    Invalidated,
    /// Another object has the name of what it is bound to now.
    #[error("{resource} UID ({found}) does not match service account {resource} ref claim ({claimed})")]
    OtherObject {
        /// `pod`, `secret` or `node`.
        resource: &'static str,
        /// Of the one that is there.
        found: String,
        /// Of the one that it is bound to.
        claimed: String,
    },
}

/// Issues tokens in the name of one URL, and reads its own.
pub struct TokenIssuer {
    key: TokenKey,
    verified: VerifiedTokens,
    /// `https://kubernetes.default.svc.cluster.local`
    url: String,
    /// Where others find the public key.
    keys_url: String,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom the token is.
    pub aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
    nbf: i64,
    sub: String,
}

/// What a token of this server says.
#[derive(Debug, PartialEq, Eq)]
pub enum OwnClaims {
    /// It was issued for a time.
    Issued(Box<Claims>),
    /// It is kept in a Secret.
    Kept(SecretClaims),
}

/// The objects that a token holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Of the account, the pod and the Secret.
    pub namespace: String,
    /// The node that it is bound to, or that the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The Secret that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// Whose token it is.
    pub serviceaccount: Reference,
    /// Unix seconds, after which it should have been replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// One object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid; empty for a node that was not there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl TokenIssuer {
    /// With a name for itself, `https://…`, and the address at which `/openid/v1/jwks` is found.
    pub fn new(key: TokenKey, url: String, server_address: &str) -> Self {
        let keys_url = format!("https://{server_address}/openid/v1/jwks");
        Self { key, verified: VerifiedTokens::default(), url, keys_url }
    }

    /// Its name, which is also the audience of tokens for this server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A token for so many seconds.
    pub fn issue(
        &self,
        bound: Bound,
        audiences: Vec<String>,
        now: Timestamp,
        seconds: i64,
    ) -> Result<String, TokenKeyError> {
        let now = now.as_second();
        let claims = Claims {
            aud: audiences,
            exp: now.saturating_add(seconds),
            iat: now,
            iss: self.url.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: service_account_user(&bound.namespace, &bound.serviceaccount.name),
            bound,
            nbf: now,
        };
        let token = self.key.sign(&json!(claims).to_string())?;
        current::annotate("authentication.kubernetes.io/issued-credential-id", || credential_id(&claims.jti));
        Ok(token)
    }

    /// What a token says that this issuer gave out; `None` for anything else. The signature is verified once, whichever
    /// of the two a token turns out to be: anybody can make one up.
    pub fn read(&self, token: &str) -> Option<OwnClaims> {
        let said = self.verified.get(token, || self.key.verified(token))?;
        let issued = serde_json::from_slice(&said).ok().filter(|claims: &Claims| claims.iss == self.url);
        if let Some(claims) = issued {
            return Some(OwnClaims::Issued(Box::new(claims)));
        }
        let kept: SecretClaims = serde_json::from_slice(&said).ok()?;
        (kept.iss == secret_token::ISSUER).then_some(OwnClaims::Kept(kept))
    }

    /// A token that is kept in a Secret.
    pub fn issue_for_secret(&self, of: &TokenOf) -> Result<String, TokenKeyError> {
        self.key.sign(&json!(SecretClaims::new(of)).to_string())
    }

    /// `/.well-known/openid-configuration`
    pub fn configuration(&self) -> String {
        json!({"issuer": self.url, "jwks_uri": self.keys_url, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]})
        .to_string()
    }

    /// `/openid/v1/jwks`
    pub fn keys(&self) -> String {
        format!(r#"{{"keys":[{}]}}"#, self.key.public_jwk())
    }
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenIssuer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Claims {
    /// Whom the token stands for, or why it is not good now.
    pub fn identify(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Identity, AccountTokenError> {
        let now = now.as_second();
        if now.saturating_sub(LEEWAY) > self.exp {
            return Err(AccountTokenError::Expired);
        }
        if now.saturating_add(LEEWAY) < self.nbf {
            return Err(AccountTokenError::TooEarly);
        }
        if now.saturating_add(LEEWAY) < self.iat {
            return Err(AccountTokenError::FromTheFuture);
        }
        let Bound { namespace, node, pod, secret, serviceaccount: account, .. } = &self.bound;
        let deleted_before = now.saturating_sub(LEEWAY);
        let key = |name: &str| format!("{namespace}/{name}");
        let found = snapshot.get("serviceaccounts", &key(&account.name));
        let found = found.ok_or_else(|| AccountTokenError::NoAccount(account.name.clone()))?;
        if *found.header().uid() != *account.uid {
            let (found, claimed) = (found.header().uid().to_owned(), account.uid.clone());
            return Err(AccountTokenError::OtherAccount { found, claimed });
        }
        if was_deleted(found, deleted_before) {
            let (namespace, name) = (namespace.clone(), account.name.clone());
            return Err(AccountTokenError::AccountDeleted { namespace, name });
        }
        let holds = |plural: &str, key: String, bound: &Reference, resource: &'static str| {
            let found = snapshot.get(plural, &key).ok_or(AccountTokenError::Invalidated)?;
            if *found.header().uid() != *bound.uid {
                let (found, claimed) = (found.header().uid().to_owned(), bound.uid.clone());
                return Err(AccountTokenError::OtherObject { resource, found, claimed });
            }
            if was_deleted(found, deleted_before) { Err(AccountTokenError::Invalidated) } else { Ok(()) }
        };
        if let Some(secret) = secret {
            holds("secrets", key(&secret.name), secret, "secret")?;
        }
        match (pod, node) {
            (Some(pod), _) => holds("pods", key(&pod.name), pod, "pod")?,
            (None, Some(node)) => holds("nodes", node.name.clone(), node, "node")?,
            (None, None) => {}
        }
        if let Some(late) = self.bound.warnafter.map(|after| now.saturating_sub(after)).filter(|late| *late > 0) {
            current::annotate("authentication.k8s.io/stale-token", || {
                format!("subject: {}, seconds after warning threshold: {late}", self.sub)
            });
        }
        let mut identity = Identity::service_account(namespace, &account.name);
        identity.uid.clone_from(&account.uid);
        identity.extra = self.extra();
        Ok(identity)
    }

    /// What the token says beside its account.
    fn extra(&self) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::new();
        let mut say = |key: &str, value: String| {
            if !value.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
            }
        };
        say("credential-id", credential_id(&self.jti));
        for (what, reference) in [("pod", &self.bound.pod), ("node", &self.bound.node)] {
            if let Some(reference) = reference {
                say(&format!("{what}-name"), reference.name.clone());
                say(&format!("{what}-uid"), reference.uid.clone());
            }
        }
        extra
    }
}

/// The id of a token by which it is known in the extra of its user, and in the event of the request that issued it.
fn credential_id(jti: &str) -> String {
    format!("JTI={jti}")
}

/// Whether the deletion of an object was asked for, and its grace ended, before a time in Unix seconds.
fn was_deleted(object: &Object, before: i64) -> bool {
    let at = || -> Option<Timestamp> {
        let value: Value = serde_json::from_slice(&object.json()).ok()?;
        value["metadata"]["deletionTimestamp"].as_str()?.parse().ok()
    };
    object.header().deleting() && at().is_none_or(|at| at.as_second() < before)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;
    use crate::{
        encode,
        kinds::Kinds,
        store::{EventType, Key},
    };

    fn snapshot(objects: &[(&str, &str, Value)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (resource, key, object) in objects {
            let kind = Kinds::built_in().by_path("", "v1", resource).unwrap();
            let object = Object::new(encode::draft(&kind, object), 1, EventType::Added);
            snapshot.load(Key { resource: (*resource).into(), name: (*key).into() }, Arc::new(object));
        }
        snapshot
    }

    fn object(name: &str, uid: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "a", "uid": uid}})
    }

    fn reference(name: &str, uid: &str) -> Reference {
        Reference { name: name.into(), uid: uid.into() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn issuer() -> TokenIssuer {
        TokenIssuer::new(TokenKey::create().unwrap().0, "https://issuer".into(), "10.0.0.1:6443")
    }

    fn read(issuer: &TokenIssuer, token: &str) -> Option<Claims> {
        match issuer.read(token)? {
            OwnClaims::Issued(claims) => Some(*claims),
            OwnClaims::Kept(_) => None,
        }
    }

    fn bound() -> Bound {
        Bound {
            namespace: "a".into(),
            serviceaccount: reference("robot", "u1"),
            pod: Some(reference("p", "u2")),
            node: Some(reference("n", "u3")),
            ..Bound::default()
        }
    }

    #[test]
    fn a_token_stands_for_its_account_with_pod_and_node() {
        let issuer = issuer();
        let token = issuer.issue(bound(), vec!["x".into()], at(1000), 600).unwrap();
        let claims = read(&issuer, &token).unwrap();
        assert_eq!(claims.aud, ["x"]);
        let objects = [("serviceaccounts", "a/robot", object("robot", "u1")), ("pods", "a/p", object("p", "u2"))];
        let identity = claims.identify(&snapshot(&objects), at(1000)).unwrap();
        assert_eq!((&*identity.name, &*identity.uid), ("system:serviceaccount:a:robot", "u1"));
        assert_eq!(identity.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        let extra: Vec<&str> = identity.extra.keys().filter_map(|key| key.rsplit('/').next()).collect();
        assert_eq!(extra, ["credential-id", "node-name", "node-uid", "pod-name", "pod-uid"]);
        let other = TokenIssuer { url: "https://other".into(), ..issuer };
        assert_eq!(other.read(&token), None, "another's token");
    }

    #[test]
    fn a_token_is_read_as_what_it_is_and_a_strangers_as_nothing() {
        let issuer = issuer();
        let of = TokenOf { namespace: "a".into(), account: "r".into(), account_uid: "u".into(), secret: "s".into() };
        let kept = issuer.issue_for_secret(&of).unwrap();
        assert_eq!(issuer.read(&kept), Some(OwnClaims::Kept(SecretClaims::new(&of))));
        let issued = issuer.issue(bound(), Vec::new(), at(1000), 600).unwrap();
        assert!(matches!(issuer.read(&issued), Some(OwnClaims::Issued(_))));
        let stranger = TokenIssuer { key: TokenKey::create().unwrap().0, ..super::tests::issuer() };
        for token in [stranger.issue_for_secret(&of).unwrap(), "a.b.c".to_owned(), String::new()] {
            assert_eq!(issuer.read(&token), None, "{token}");
        }
    }

    #[test]
    fn the_use_of_a_token_that_should_have_been_renewed_is_noted() {
        let issuer = issuer();
        let token = issuer.issue(Bound { warnafter: Some(1100), ..bound() }, Vec::new(), at(1000), 600).unwrap();
        let claims = read(&issuer, &token).unwrap();
        let objects = [("serviceaccounts", "a/robot", object("robot", "u1")), ("pods", "a/p", object("p", "u2"))];
        let noted = |now| {
            let identify = async { claims.identify(&snapshot(&objects), at(now)) };
            let (identity, notes) = current::gather(identify).now_or_never().unwrap();
            identity.unwrap();
            notes
        };
        assert!(noted(1100).is_empty());
        let words = "subject: system:serviceaccount:a:robot, seconds after warning threshold: 5";
        assert_eq!(noted(1105), [("authentication.k8s.io/stale-token".to_owned(), words.to_owned())]);
    }

    #[test]
    fn a_token_ends_with_its_time_and_with_what_it_is_bound_to() {
        let issuer = issuer();
        let told = |bound: Bound, objects: &[(&str, &str, Value)], now: i64| {
            let claims = read(&issuer, &issuer.issue(bound, Vec::new(), at(1000), 600).unwrap()).unwrap();
            claims
                .identify(&snapshot(objects), at(now))
                .map_or_else(|error| error.to_string(), |identity| identity.name)
        };
        let account = ("serviceaccounts", "a/robot", object("robot", "u1"));
        let pod = |uid: &str| ("pods", "a/p", object("p", uid));
        let all = [account.clone(), pod("u2")];
        assert_eq!(told(bound(), &all, 1660), "system:serviceaccount:a:robot");
        assert_eq!(told(bound(), &all, 1661), "service account token has expired");
        assert_eq!(told(bound(), &all, 939), "service account token is not valid yet");
        assert_eq!(told(bound(), &[pod("u2")], 1000), "serviceaccounts \"robot\" not found");
        let again = ("serviceaccounts", "a/robot", object("robot", "new"));
        assert_eq!(told(bound(), &[again, pod("u2")], 1000), "service account UID (new) does not match claim (u1)");
        let invalidated = "service account token has been invalidated";
        assert_eq!(told(bound(), std::slice::from_ref(&account), 1000), invalidated);
        let words = "pod UID (new) does not match service account pod ref claim (u2)";
        assert_eq!(told(bound(), &[account.clone(), pod("new")], 1000), words);
        let mut leaving = object("p", "u2");
        leaving["metadata"]["deletionTimestamp"] = json!(at(1000).to_string());
        let leaving = [account.clone(), ("pods", "a/p", leaving)];
        assert_eq!(told(bound(), &leaving, 1060), "system:serviceaccount:a:robot");
        assert_eq!(told(bound(), &leaving, 1061), invalidated);
        let to_node = Bound { pod: None, ..bound() };
        assert_eq!(told(to_node.clone(), std::slice::from_ref(&account), 1000), invalidated);
        let node = ("nodes", "n", object("n", "u3"));
        assert_eq!(told(to_node, &[account.clone(), node], 1000), "system:serviceaccount:a:robot");
        let to_secret = Bound { pod: None, node: None, secret: Some(reference("s", "u4")), ..bound() };
        assert_eq!(told(to_secret, &[account], 1000), invalidated);
    }
}
