//! Tokens that are kept in Secrets of type `kubernetes.io/service-account-token`: what one says, and whether it is good
//! now. It is good for as long as the Secret has it and the account is there; it has no end of its own.
//!
//! Source: `pkg/serviceaccount/legacy.go` of Kubernetes, whose words these are.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::secret_token_use::{is_labelled, label_of};
use crate::{
    audit::current,
    controllers::TokenOf,
    identity::{Identity, service_account_user},
    store::{Object, Snapshot},
    warnings,
};

/// Who issues such tokens, as they say.
pub const ISSUER: &str = "kubernetes/serviceaccount";
/// The day on which a Secret's token was declared invalid.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What a token says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretClaims {
    /// Always [`ISSUER`].
    pub iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    account_uid: String,
}

/// Why a token is not good now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretTokenError {
    /// It does not say all that it must.
    #[error("{0} claim is missing")]
    MissingClaim(&'static str),
    /// It is for another account than it says.
    #[error("sub claim is invalid")]
    Subject,
    /// Its Secret is gone.
    #[error("Token has been invalidated")]
    Invalidated,
    /// Its Secret has another token.
    #[error("Token does not match server's copy")]
    OtherToken,
    /// Its account is not there.
    #[error("serviceaccounts {0:?} not found")]
    NoAccount(String),
    /// Its account is being deleted.
    #[error("ServiceAccount {namespace}/{name} has been deleted")]
    AccountDeleted {
        /// Of the account.
        namespace: String,
        /// Of the account.
        name: String,
    },
    /// Another account has that name now.
    #[error("ServiceAccount UID ({found}) does not match claim ({claimed})")]
    OtherAccount {
        /// Of the one that is there.
        found: String,
        /// Of the one that it was issued for.
        claimed: String,
    },
    /// A label of its Secret says so.
    #[error(
        "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. \
         Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' \
         label from the secret to temporarily allow use of this token"
    )]
    MarkedInvalid {
        /// Of both.
        namespace: String,
        /// The Secret's name.
        secret: String,
        /// The account's name.
        account: String,
    },
}

/// What a token is worth.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The account that it stands for, or why it is not good.
    pub holder: Result<Identity, SecretTokenError>,
    /// Key of the Secret to be labelled: its token is used, even in vain, for the first time on this day.
    pub first_today: Option<String>,
}

impl SecretClaims {
    /// Of a new token.
    pub fn new(of: &TokenOf) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            sub: service_account_user(&of.namespace, &of.account),
            namespace: of.namespace.clone(),
            secret: of.secret.clone(),
            account: of.account.clone(),
            account_uid: of.account_uid.clone(),
        }
    }

    /// What `token`, which says this, is worth at `now`.
    pub fn judge(&self, token: &str, snapshot: &Snapshot, now: Timestamp) -> Judgement {
        match self.found(token, snapshot) {
            Err(why) => Judgement { holder: Err(why), first_today: None },
            Ok((secret, account)) => Judgement {
                holder: self.identify(&secret, &account),
                first_today: (!is_labelled(&secret, now)).then(|| self.key()),
            },
        }
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.secret)
    }

    /// The Secret that holds `token`, and its account.
    fn found(&self, token: &str, snapshot: &Snapshot) -> Result<(Arc<Object>, Arc<Object>), SecretTokenError> {
        let Self { namespace, secret, account, account_uid, .. } = self;
        for (claim, value) in [
            ("namespace", namespace),
            ("secretName", secret),
            ("serviceAccountName", account),
            ("serviceAccountUID", account_uid),
        ] {
            if value.is_empty() {
                return Err(SecretTokenError::MissingClaim(claim));
            }
        }
        if self.sub != service_account_user(namespace, account) {
            return Err(SecretTokenError::Subject);
        }
        let stored = snapshot.get("secrets", &self.key()).filter(|secret| !secret.header().deleting());
        let stored = stored.ok_or(SecretTokenError::Invalidated)?;
        let copy: Value = serde_json::from_slice(&stored.json()).unwrap_or_default();
        let copy =
            copy["data"]["token"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
        if !bool::from(copy.ct_eq(token.as_bytes())) {
            return Err(SecretTokenError::OtherToken);
        }
        let found = snapshot.get("serviceaccounts", &format!("{namespace}/{account}"));
        let found = found.ok_or_else(|| SecretTokenError::NoAccount(account.clone()))?;
        if found.header().deleting() {
            let (namespace, name) = (namespace.clone(), account.clone());
            return Err(SecretTokenError::AccountDeleted { namespace, name });
        }
        if *found.header().uid() != **account_uid {
            let (found, claimed) = (found.header().uid().to_owned(), account_uid.clone());
            return Err(SecretTokenError::OtherAccount { found, claimed });
        }
        Ok((stored.clone(), found.clone()))
    }

    /// Whom the token stands for, unless it is marked invalid.
    fn identify(&self, stored: &Object, found: &Object) -> Result<Identity, SecretTokenError> {
        let Self { namespace, secret, account, account_uid, .. } = self;
        if label_of(stored, INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            current::annotate("authentication.k8s.io/legacy-token-invalidated", || format!("{secret}/{namespace}"));
            return Err(SecretTokenError::MarkedInvalid {
                namespace: namespace.clone(),
                secret: secret.clone(),
                account: account.clone(),
            });
        }
        let account_object: Value = serde_json::from_slice(&found.json()).unwrap_or_default();
        let mut references = account_object["secrets"].as_array().into_iter().flatten();
        let is_generated = references.any(|reference| reference["name"] == secret.as_str());
        let how = if is_generated { "autogenerated" } else { "manual" };
        current::annotate(&format!("authentication.k8s.io/legacy-token-{how}-secret"), || secret.clone());
        if is_generated {
            let why = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of \
                       auto-generated secret-based tokens.";
            warnings::add(why.to_owned());
        }
        let mut identity = Identity::service_account(namespace, account);
        identity.uid.clone_from(account_uid);
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::json;

    use super::{super::secret_token_use::LAST_USED, *};
    use crate::{
        encode,
        kinds::Kinds,
        store::{EventType, Key},
    };

    const TOKEN: &str = "a.b.c";

    fn told(secret: &Value, account: &Value) -> Judgement {
        let mut snapshot = Snapshot::default();
        for (resource, key, object) in [("secrets", "a/t", secret), ("serviceaccounts", "a/robot", account)] {
            if object.is_null() {
                continue;
            }
            let kind = Kinds::built_in().by_path("", "v1", resource).unwrap();
            let object = Object::new(encode::draft(&kind, object), 1, EventType::Added);
            snapshot.load(Key { resource: resource.into(), name: key.into() }, Arc::new(object));
        }
        let of =
            TokenOf { namespace: "a".into(), account: "robot".into(), account_uid: "u".into(), secret: "t".into() };
        SecretClaims::new(&of).judge(TOKEN, &snapshot, "2026-11-22T07:00:00Z".parse().unwrap())
    }

    fn secret(labels: Value, token: &str) -> Value {
        json!({"metadata": {"name": "t", "namespace": "a", "labels": labels},
            "data": {"token": BASE64_STANDARD.encode(token)}})
    }

    #[test]
    fn a_token_is_good_while_its_secret_has_it_and_its_account_is_there() {
        let account = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u"}});
        let holder = told(&secret(json!({}), TOKEN), &account).holder.unwrap();
        assert_eq!((&*holder.name, &*holder.uid), ("system:serviceaccount:a:robot", "u"));

        let why = |secret: &Value, account: &Value| told(secret, account).holder.unwrap_err().to_string();
        assert_eq!(why(&Value::Null, &account), "Token has been invalidated");
        assert_eq!(why(&secret(json!({}), "x"), &account), "Token does not match server's copy");
        assert_eq!(why(&secret(json!({}), TOKEN), &Value::Null), "serviceaccounts \"robot\" not found");
        let other = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "new"}});
        assert_eq!(why(&secret(json!({}), TOKEN), &other), "ServiceAccount UID (new) does not match claim (u)");
        let invalid = secret(json!({INVALID_SINCE: "2026-01-01"}), TOKEN);
        assert!(why(&invalid, &account).contains("has been marked invalid"));
        let mut leaving = secret(json!({}), TOKEN);
        leaving["metadata"]["deletionTimestamp"] = "2026-11-22T07:00:00Z".into();
        assert_eq!(why(&leaving, &account), "Token has been invalidated");
    }

    #[test]
    fn its_use_is_noted_by_the_name_of_its_secret() {
        let account =
            |secrets: Value| json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u"}, "secrets": secrets});
        let noted = |labels: Value, secrets: Value| {
            let use_it = async { told(&secret(labels, TOKEN), &account(secrets)) };
            current::gather(use_it).now_or_never().unwrap().1
        };
        let of = |what: &str, value: &str| [(format!("authentication.k8s.io/legacy-token-{what}"), value.to_owned())];
        assert_eq!(noted(json!({}), json!([])), of("manual-secret", "t"));
        assert_eq!(noted(json!({}), json!([{"name": "t"}])), of("autogenerated-secret", "t"));
        assert_eq!(noted(json!({INVALID_SINCE: "2026-01-01"}), json!([])), of("invalidated", "t/a"));
    }

    #[test]
    fn the_first_use_of_a_day_is_noted_even_of_a_token_that_is_marked_invalid() {
        let account = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u"}});
        let noted = |labels| told(&secret(labels, TOKEN), &account).first_today;
        let used = Some("a/t".to_owned());
        assert_eq!(noted(json!({})), used);
        assert_eq!(noted(json!({INVALID_SINCE: "2026-01-01"})), used);
        assert_eq!(noted(json!({LAST_USED: "2026-11-21"})), used);
        // Another server's clock may be ahead.
        for day in ["2026-11-22", "2026-11-23"] {
            assert_eq!(noted(json!({LAST_USED: day})), None, "{day}");
        }
        assert_eq!(told(&secret(json!({}), "x"), &account).first_today, None, "it is not its token");
    }
}
