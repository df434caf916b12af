//! Tokens that are kept in Secrets of type `kubernetes.io/service-account-token`: what one says, and whether it is good
//! now. It is good for as long as the Secret has it and the account is there; it has no end of its own. The Secret is
//! labelled with the day on which it was last used.
//!
//! Source: `pkg/serviceaccount/legacy.go` of Kubernetes, whose words these are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Request, header};
use jiff::{Timestamp, tz::TimeZone};
use kube::Client;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    controllers::TokenOf,
    engine::{Failure, Outcome, WorkQueue, api_code, work},
    identity::Identity,
    store::{Object, Snapshot, Store},
    warnings,
};

/// Who issues such tokens, as they say.
pub const ISSUER: &str = "kubernetes/serviceaccount";
/// The day on which a Secret's token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
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

/// Whose a good token is.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    /// The account.
    pub identity: Identity,
    /// Key of the Secret, if its label does not say that it was used today.
    pub first_today: Option<String>,
}

impl SecretClaims {
    /// Of a new token.
    pub fn new(of: &TokenOf) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", of.namespace, of.account),
            namespace: of.namespace.clone(),
            secret: of.secret.clone(),
            account: of.account.clone(),
            account_uid: of.account_uid.clone(),
        }
    }

    /// Whom `token`, which says this, stands for, or why it is not good at `now`.
    pub fn identify(&self, token: &str, snapshot: &Snapshot, now: Timestamp) -> Result<Holder, String> {
        let Self { namespace, secret, account, account_uid, .. } = self;
        for (claim, value) in [
            ("namespace", namespace),
            ("secretName", secret),
            ("serviceAccountName", account),
            ("serviceAccountUID", account_uid),
        ] {
            if value.is_empty() {
                return Err(format!("{claim} claim is missing"));
            }
        }
        if self.sub != format!("system:serviceaccount:{namespace}:{account}") {
            return Err("sub claim is invalid".to_owned());
        }
        let key = format!("{namespace}/{secret}");
        let stored = snapshot.get("secrets", &key).filter(|secret| !secret.header().deleting());
        let stored = stored.ok_or_else(|| "Token has been invalidated".to_owned())?;
        let copy: Value = serde_json::from_slice(&stored.json()).unwrap_or_default();
        let copy =
            copy["data"]["token"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
        if !bool::from(copy.ct_eq(token.as_bytes())) {
            return Err("Token does not match server's copy".to_owned());
        }
        let found = snapshot.get("serviceaccounts", &format!("{namespace}/{account}"));
        let found = found.ok_or_else(|| format!("serviceaccounts {account:?} not found"))?;
        if found.header().deleting() {
            return Err(format!("ServiceAccount {namespace}/{account} has been deleted"));
        }
        if *found.header().uid() != **account_uid {
            return Err(format!("ServiceAccount UID ({}) does not match claim ({account_uid})", found.header().uid()));
        }
        if label_of(stored, INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            return Err(format!(
                "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked \
                 invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
                 '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            ));
        }
        let account_object: Value = serde_json::from_slice(&found.json()).unwrap_or_default();
        let mut references = account_object["secrets"].as_array().into_iter().flatten();
        if references.any(|reference| reference["name"] == secret.as_str()) {
            let why = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of \
                       auto-generated secret-based tokens.";
            warnings::add(why.to_owned());
        }
        let mut identity = Identity::service_account(namespace, account);
        identity.uid.clone_from(account_uid);
        let is_known = label_of(stored, LAST_USED) == Some(&*day_of(now));
        Ok(Holder { identity, first_today: (!is_known).then_some(key) })
    }
}

fn label_of<'o>(secret: &'o Object, name: &str) -> Option<&'o str> {
    secret.header().label(name)
}

/// `2026-11-22`
fn day_of(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}

/// How long a use of a Secret's token stands for all further ones.
const NOTED_FOR: Duration = Duration::from_secs(60);
/// How many uses are remembered before old ones are looked for.
const NOTED: usize = 1024;
/// How long an answer is waited for: a webhook may be slow to give it. The write goes on without.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many Secrets are labelled at a time, so that one whose webhook hangs does not hold up the others.
const CONCURRENCY: usize = 8;

/// What fails, after "cannot".
const LABEL: &str = "say when a token was last used";

/// The Secrets whose tokens were used, until that is written. Cheap to clone.
#[derive(Clone)]
pub struct UsedSecrets {
    queue: Arc<WorkQueue<String>>,
    /// When uses were noted: a label that cannot be written, or does not stay, is no write for each request.
    noted: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Default for UsedSecrets {
    fn default() -> Self {
        Self { queue: Arc::new(WorkQueue::new("secret-token-use")), noted: Arc::default() }
    }
}

impl UsedSecrets {
    /// Notes that a Secret's token was used now, once a minute. One whose labelling failed waits for its next try.
    pub fn add(&self, key: String) {
        let now = Instant::now();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < NOTED_FOR;
        let mut noted = self.noted.lock();
        if noted.get(&key).is_some_and(is_recent) {
            return;
        }
        if noted.len() >= NOTED {
            noted.retain(|_, at| is_recent(at));
        }
        noted.insert(key.clone(), now);
        drop(noted);
        self.queue.add_if_idle(key);
    }

    /// Labels the Secrets, until `stop`.
    pub async fn run(self, store: Arc<dyn Store>, client: Client, stop: CancellationToken) {
        let label = move |key: String| {
            let (store, client) = (store.clone(), client.clone());
            async move {
                let late = |elapsed| Failure::request(LABEL)(kube::Error::Service(Box::new(elapsed)));
                timeout(PATIENCE, label(&*store, &client, &key)).await.map_err(late)?
            }
        };
        work("secret-token-use", self.queue, CONCURRENCY, stop, label).await;
    }
}

async fn label(store: &dyn Store, client: &Client, key: &str) -> Result<Outcome, Failure> {
    let (Some(secret), Some((namespace, name))) = (store.snapshot().get("secrets", key).cloned(), key.split_once('/'))
    else {
        return Ok(Outcome::Done);
    };
    let today = day_of(Timestamp::now());
    // By a try whose answer did not come in time.
    if label_of(&secret, LAST_USED) == Some(&*today) {
        return Ok(Outcome::Done);
    }
    let patch = json!({"metadata": {"uid": secret.header().uid(), "labels": {LAST_USED: today}}});
    let request = Request::patch(format!("/api/v1/namespaces/{namespace}/secrets/{name}"))
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(|error| Failure::Malformed { what: "the request", message: error.to_string() })?;
    match client.request::<IgnoredAny>(request).await {
        Ok(_) => Ok(Outcome::Done),
        // It is gone, or another has its name.
        Err(error) if matches!(api_code(&error), Some(404 | 409)) => Ok(Outcome::Done),
        Err(error) => Err(Failure::request(LABEL)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        encode,
        kinds::Kinds,
        store::{EventType, Key},
    };

    const TOKEN: &str = "a.b.c";

    fn told(secret: &Value, account: &Value) -> Result<Holder, String> {
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
        SecretClaims::new(&of).identify(TOKEN, &snapshot, "2026-11-22T07:00:00Z".parse().unwrap())
    }

    fn secret(labels: Value, token: &str) -> Value {
        json!({"metadata": {"name": "t", "namespace": "a", "labels": labels},
            "data": {"token": BASE64_STANDARD.encode(token)}})
    }

    #[test]
    fn a_token_is_good_while_its_secret_has_it_and_its_account_is_there() {
        let account = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u"}});
        let holder = told(&secret(json!({}), TOKEN), &account).unwrap();
        assert_eq!((&*holder.identity.name, &*holder.identity.uid), ("system:serviceaccount:a:robot", "u"));
        assert_eq!(holder.first_today.as_deref(), Some("a/t"));
        assert_eq!(told(&secret(json!({LAST_USED: "2026-11-22"}), TOKEN), &account).unwrap().first_today, None);

        let why = |secret: &Value, account: &Value| told(secret, account).unwrap_err();
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
}
