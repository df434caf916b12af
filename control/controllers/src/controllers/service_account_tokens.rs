//! Tokens in Secrets of type `kubernetes.io/service-account-token`: each that somebody makes is filled with a token of
//! the account that it names, and goes with the account. None is made by itself.
//!
//! Source: `pkg/controller/serviceaccount/tokens_controller.go` of Kubernetes.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use fairlead_client::Api;
use fairlead_kinds::kinds::{names, secret::ACCOUNT_NAME};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Context;
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks, is_gone_or_taken, unless_gone},
    objects::informer_index::of_account,
};

const COMPONENT: &str = "tokens-controller";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Whose token a Secret is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOf {
    /// Of the account and of the Secret.
    pub namespace: String,
    /// The account's name.
    pub account: String,
    /// The account's UID.
    pub account_uid: String,
    /// The Secret's name.
    pub secret: String,
}

/// Signs a token; the error says why that is not possible.
pub type SignToken = Arc<dyn Fn(&TokenOf) -> Result<String, Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

struct Controller {
    client: Client,
    accounts: Arc<Informer<ServiceAccount>>,
    secrets: Arc<Informer<Secret>>,
    sign: SignToken,
    ca_pem: String,
    /// Secrets that are gone, whose accounts may still name them.
    gone: Mutex<HashMap<Key, AccountOf>>,
}

/// The account that a Secret that is gone was for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AccountOf {
    name: String,
    /// Empty where the Secret did not state it.
    uid: String,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        accounts: informers.service_accounts.clone(),
        secrets: informers.token_secrets.clone(),
        sign: context.config.sign_token.clone(),
        ca_pem: context.config.authority.certificate_pem().to_owned(),
        gone: Mutex::default(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.token_secrets, |controller, change, queue| {
            if let (Some(old), None) = (&change.old, &change.new) {
                let (name, uid) = (annotation(old, ACCOUNT_NAME).to_owned(), annotation(old, ACCOUNT_UID).to_owned());
                let account = AccountOf { name, uid };
                controller.gone.lock().insert(change.key.clone(), account);
            }
            queue.add(change.key.clone());
        })
        .on(&informers.service_accounts, |controller, change, queue| {
            if change.new.is_none() {
                let (namespace, name) = (&change.key.namespace, &change.key.name);
                for secret in controller.secrets.indexed(&of_account(namespace, name)) {
                    queue.add(Key::new(namespace, secret.metadata.name.as_deref().unwrap_or_default()));
                }
            }
        })
        .start(tasks, 2, Controller::reconcile);
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(name)).map_or("", String::as_str)
}

/// Whether an account can have this name, which anyone wrote who may write Secrets.
fn is_account_name(name: &str) -> bool {
    names::subdomain(name).is_empty()
}

/// Whether `account`, whose name the Secret states, also has the UID that it states, if it states one.
fn is_account_of(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = annotation(secret, ACCOUNT_UID);
    uid.is_empty() || account.metadata.uid.as_deref() == Some(uid)
}

/// What has to be done to a Secret.
#[derive(Debug, PartialEq, Eq)]
enum SecretRepair {
    /// Its account is not there.
    Delete,
    /// These parts of its data are missing, or not those of the cluster.
    Fill {
        ca: bool,
        namespace: bool,
        token: bool,
    },
    Nothing,
}

/// `account` is the one that the Secret names.
fn plan(secret: &Secret, account: Option<&ServiceAccount>, ca_pem: &str) -> SecretRepair {
    if !account.is_some_and(|account| is_account_of(secret, account)) {
        return SecretRepair::Delete;
    }
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |value| &value.0);
    let ca = !ca_pem.is_empty() && data("ca.crt") != ca_pem.as_bytes();
    let (namespace, token) = (data("namespace").is_empty(), data("token").is_empty());
    if ca || namespace || token { SecretRepair::Fill { ca, namespace, token } } else { SecretRepair::Nothing }
}

/// The account's list of Secrets without one; nothing if it does not name it.
fn without_reference(account: &ServiceAccount, secret: &str) -> Option<Value> {
    let secrets = account.secrets.as_deref().unwrap_or_default();
    let left: Vec<_> = secrets.iter().filter(|reference| reference.name.as_deref() != Some(secret)).collect();
    (left.len() < secrets.len()).then(|| json!(left))
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let (secret, gone) = {
            // In one step: what is taken was noted before the Secret was there again. A later deletion is noted anew.
            let mut gone = self.gone.lock();
            (self.secrets.get(&key), gone.remove(&key))
        };
        match (secret, gone) {
            (Some(secret), _) => self.fill_or_delete(&key, &secret).await,
            (None, Some(account)) => {
                let removed = self.remove_reference(&key, &account).await;
                if removed.is_err() {
                    // For the next try, which is for another account if another such Secret is gone meanwhile.
                    self.gone.lock().entry(key).or_insert(account);
                }
                removed
            }
            (None, None) => Ok(Outcome::Done),
        }
    }

    async fn fill_or_delete(&self, key: &Key, secret: &Secret) -> Result<Outcome, Failure> {
        let name = annotation(secret, ACCOUNT_NAME);
        let known = self.accounts.get(&Key::new(&key.namespace, name));
        let account = match known.filter(|account| is_account_of(secret, account)) {
            Some(account) => Some(account),
            // No account has such a name, and it must not become part of a path.
            None if !is_account_name(name) => None,
            // It may be newer than what is known here.
            None => {
                let found = self.accounts_of(key).get_opt(name).await;
                found.map_err(Failure::request("read an account"))?.map(Arc::new)
            }
        };
        match plan(secret, account.as_deref(), &self.ca_pem) {
            SecretRepair::Nothing => Ok(Outcome::Done),
            SecretRepair::Delete => {
                let uid = secret.metadata.uid.clone();
                let preconditions = Some(Preconditions { uid, ..Preconditions::default() });
                let params = DeleteParams { preconditions, ..DeleteParams::default() };
                match self.secrets_of(key).delete(&key.name, &params).await {
                    Ok(()) => Ok(Outcome::Done),
                    Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
                    Err(error) => Err(Failure::request("delete a token whose account is gone")(error)),
                }
            }
            SecretRepair::Fill { ca, namespace, token } => {
                let uid = account.and_then(|account| account.metadata.uid.clone()).unwrap_or_default();
                let mut data = json!({});
                if ca {
                    data["ca.crt"] = BASE64_STANDARD.encode(&self.ca_pem).into();
                }
                if namespace {
                    data["namespace"] = BASE64_STANDARD.encode(&key.namespace).into();
                }
                if token {
                    let of = TokenOf {
                        namespace: key.namespace.clone(),
                        account: name.to_owned(),
                        account_uid: uid.clone(),
                        secret: key.name.clone(),
                    };
                    let signed = (self.sign)(&of).map_err(|error| Failure::Malformed {
                        what: "the key that signs tokens",
                        message: error.to_string(),
                    })?;
                    data["token"] = BASE64_STANDARD.encode(signed).into();
                }
                let metadata = json!({"uid": secret.metadata.uid, "resourceVersion": secret.metadata.resource_version,
                    "annotations": {ACCOUNT_NAME: name, ACCOUNT_UID: uid}});
                let patch = Patch::Merge(json!({"metadata": metadata, "data": data}));
                match self.secrets_of(key).patch(&key.name, &PatchParams::default(), &patch).await {
                    Ok(_) => Ok(Outcome::Done),
                    // Another change of it comes, or its deletion.
                    Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
                    Err(error) => Err(Failure::request("fill a Secret with a token")(error)),
                }
            }
        }
    }

    /// Takes a Secret that is gone out of its account's list.
    async fn remove_reference(&self, key: &Key, of: &AccountOf) -> Result<Outcome, Failure> {
        let account = self.accounts.get(&Key::new(&key.namespace, &of.name));
        let account = account.filter(|account| of.uid.is_empty() || account.metadata.uid.as_ref() == Some(&of.uid));
        let Some(account) = account else { return Ok(Outcome::Done) };
        let Some(left) = without_reference(&account, &key.name) else { return Ok(Outcome::Done) };
        let metadata = json!({"uid": account.metadata.uid, "resourceVersion": account.metadata.resource_version});
        let patch = Patch::Merge(json!({"metadata": metadata, "secrets": left}));
        let answer = self.accounts_of(key).patch(&of.name, &PatchParams::default(), &patch).await;
        unless_gone(answer, "take a Secret out of its account's list").map(|_| Outcome::Done)
    }

    fn secrets_of(&self, key: &Key) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn accounts_of(&self, key: &Key) -> Api<ServiceAccount> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use kube::runtime::watcher::Event;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn secret(uid: &str, data: Value) -> Secret {
        serde_json::from_value(
            json!({"metadata": {"name": "t", "annotations": {ACCOUNT_NAME: "robot", ACCOUNT_UID: uid}},
            "data": data}),
        )
        .unwrap()
    }

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "robot", "uid": "u"}})).unwrap();
        let fill = |ca, namespace, token| SecretRepair::Fill { ca, namespace, token };
        assert_eq!(plan(&secret("", json!({})), Some(&account), "ca"), fill(true, true, true));
        let filled = json!({"token": "dA==", "namespace": "bg==", "ca.crt": BASE64_STANDARD.encode("ca")});
        assert_eq!(plan(&secret("u", filled.clone()), Some(&account), "ca"), SecretRepair::Nothing);
        assert_eq!(plan(&secret("u", filled.clone()), Some(&account), "another"), fill(true, false, false));
        assert_eq!(plan(&secret("other", filled.clone()), Some(&account), "ca"), SecretRepair::Delete);
        assert_eq!(plan(&secret("", filled), None, "ca"), SecretRepair::Delete);
    }

    #[test]
    fn only_names_that_an_account_can_have_are_asked_for() {
        assert!(is_account_name("robot") && is_account_name("robot.a-1"));
        for name in ["", "a/b", "../../pods", "a?watch=true", "a b", "a%2fb", "Robot", ".."] {
            assert!(!is_account_name(name), "{name:?}");
        }
    }

    /// A controller that knows the account robot, which names the Secret `t`, and whose API answers with these codes;
    /// `asked` is called before each answer.
    async fn controller(
        codes: &'static [u16],
        asked: impl Fn(&Controller) + Clone + Send + Sync + 'static,
    ) -> Arc<Controller> {
        let accounts = Informer::new(None);
        let account = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u"}, "secrets": [{"name": "t"}]});
        let account: ServiceAccount = serde_json::from_value(account).unwrap();
        let events = [Event::Init, Event::InitApply(account), Event::InitDone].map(Ok);
        accounts.clone().run(futures::stream::iter(events), CancellationToken::new()).await;
        Arc::new_cyclic(|controller: &Weak<Controller>| {
            let (controller, codes) = (controller.clone(), Arc::new(Mutex::new(codes.iter())));
            let api = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                asked(&controller.upgrade().unwrap());
                let code = *codes.lock().next().expect("a further request");
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "no", "reason": "no", "code": code});
                let body = if code == 200 { json!({"metadata": {"name": "robot"}}) } else { status };
                let body = kube::client::Body::from(body.to_string().into_bytes());
                std::future::ready(http::Response::builder().status(code).body(body))
            });
            Controller {
                client: Client::new(api, "a"),
                accounts,
                secrets: Informer::new(None),
                sign: Arc::new(|_| Ok(String::new())),
                ca_pem: String::new(),
                gone: Mutex::default(),
            }
        })
    }

    fn deleted(controller: &Controller, uid: &str) {
        let account = AccountOf { name: "robot".to_owned(), uid: uid.to_owned() };
        controller.gone.lock().insert(Key::new("a", "t"), account);
    }

    #[tokio::test]
    async fn a_reference_that_could_not_be_removed_is_tried_again() {
        let controller = controller(&[500, 200], |_| {}).await;
        deleted(&controller, "u");
        assert!(controller.clone().reconcile(Key::new("a", "t")).await.is_err());
        assert!(matches!(controller.clone().reconcile(Key::new("a", "t")).await, Ok(Outcome::Done)));
        assert!(controller.gone.lock().is_empty());
    }

    #[tokio::test]
    async fn a_deletion_that_comes_while_the_last_one_is_handled_is_not_lost() {
        for codes in [&[200][..], &[500]] {
            let controller = controller(codes, |controller| deleted(controller, "later")).await;
            deleted(&controller, "u");
            drop(controller.clone().reconcile(Key::new("a", "t")).await);
            assert_eq!(controller.gone.lock()[&Key::new("a", "t")].uid, "later", "{codes:?}");
        }
    }

    #[test]
    fn a_secret_that_is_gone_is_taken_out_of_the_list_of_its_account() {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {}, "secrets": [{"name": "t"}, {"name": "other"}]})).unwrap();
        assert_eq!(without_reference(&account, "t"), Some(json!([{"name": "other"}])));
        assert_eq!(without_reference(&account, "x"), None);
    }
}
