//! What a ServiceAccount says about its pods, and where it is found.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::Value;

use super::super::{plugins::AdmissionContext, readings::Readings};
use crate::{
    kinds::reading::{items, text},
    reflector::Reflector,
    store::{NAMESPACE_INDEX, Snapshot, Store},
};

/// Where ServiceAccounts are stored.
pub const RESOURCE: &str = "serviceaccounts";

/// The account of pods that name none. Its controller makes it a moment after the namespace.
pub(super) const DEFAULT: &str = "default";
/// How long a pod waits for the account `default`: as long as Kubernetes tries.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A pod names an account that is not there.
#[derive(Debug, thiserror::Error)]
#[error("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found")]
pub struct UnknownAccount {
    namespace: String,
    name: String,
}

/// What a ServiceAccount says about its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Whether pods get a token that do not say.
    pub(super) automount: Option<bool>,
    /// Of pods that name none.
    pub(super) pull_secrets: Vec<String>,
    /// Those that its pods may have, where it enforces that.
    pub(super) secrets: BTreeSet<String>,
    /// Whether its pods may have no others.
    pub(super) enforces_secrets: bool,
}

/// Reads a stored ServiceAccount.
pub fn read(account: &Value) -> Account {
    let names = |list: &Value| items(list).map(|one| text(one, "name").to_owned()).collect::<Vec<_>>();
    let enforced = text(&account["metadata"]["annotations"], "kubernetes.io/enforce-mountable-secrets");
    Account {
        automount: account["automountServiceAccountToken"].as_bool(),
        pull_secrets: names(&account["imagePullSecrets"]),
        secrets: names(&account["secrets"]).into_iter().collect(),
        // As Go reads a bool.
        enforces_secrets: matches!(enforced, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

/// The account of this name, or why there is none. Waits a moment for the account `default`.
pub(super) async fn find(context: &AdmissionContext<'_>, name: &str) -> Result<Arc<Account>, UnknownAccount> {
    let (snapshot, readings) = (context.request.snapshot, &context.readings.accounts);
    let namespace = context.request.namespace.unwrap_or_default();
    account_in(readings, snapshot, context.store, (namespace, name)).await
}

async fn account_in(
    readings: &Readings<Account>,
    snapshot: &Snapshot,
    store: &Arc<dyn Store>,
    (namespace, name): (&str, &str),
) -> Result<Arc<Account>, UnknownAccount> {
    let key = format!("{namespace}/{name}");
    if let Some(account) = readings.get(snapshot, &key) {
        return Ok(account);
    }
    let unknown = || UnknownAccount { namespace: namespace.to_owned(), name: name.to_owned() };
    if name != DEFAULT {
        return Err(unknown());
    }
    let made = async {
        let mut reflector = Reflector::of_term(store.clone(), RESOURCE, (NAMESPACE_INDEX, namespace));
        loop {
            reflector.next().await;
            if let Some(account) = readings.get(&store.snapshot(), &key) {
                return account;
            }
        }
    };
    tokio::time::timeout(PATIENCE, made).await.map_err(|_| unknown())
}
