//! Looks up what authentication and authorisation need from the stored objects, at the moment they need it.
//!
//! Asked anew each time, of the store in this process: a pod's Secret can be read in the very moment the pod is bound.

use std::sync::{Arc, OnceLock};

use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Secret};

use super::{
    account_token::TokenIssuer,
    authorize::Fact,
    bootstrap_token::{self, BootstrapToken},
    node_relations,
    secret_token_use::UsedSecrets,
};
use crate::{
    controllers::SignToken,
    status::Status,
    store::{Object, Snapshot, Store},
};

const REQUESTS: &str = "certificatesigningrequests.certificates.k8s.io";

/// The stored objects as the gate sees them.
#[derive(Clone)]
pub struct StoredFacts {
    store: Arc<dyn Store>,
    /// Set once, before anything is served; without it there are no tokens of ServiceAccounts.
    issuer: Arc<OnceLock<TokenIssuer>>,
    used_secrets: UsedSecrets,
}

/// An object that the API let in cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the stored {resource} {key:?} is not readable")]
pub struct Unreadable {
    pub(super) resource: &'static str,
    pub(super) key: String,
    pub(super) source: serde_json::Error,
}

impl Unreadable {
    /// The 500 of a request that it keeps from being decided about; the reason goes to the log.
    pub fn to_status(&self) -> Status {
        tracing::error!(error = self as &dyn std::error::Error, "cannot look up what authorisation needs");
        Status::internal("cannot look up what authorisation needs")
    }
}

impl StoredFacts {
    /// Looks facts up in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, issuer: Arc::default(), used_secrets: UsedSecrets::default() }
    }

    /// Who issues the tokens of ServiceAccounts.
    pub fn issuer(&self) -> Option<&TokenIssuer> {
        self.issuer.get()
    }

    /// Has tokens issued and read by `issuer`. Said once.
    pub fn issue_tokens_by(&self, issuer: TokenIssuer) {
        if self.issuer.set(issuer).is_err() {
            tracing::error!("the issuer of tokens was set before; the first one stays");
        }
    }

    /// The Secrets whose tokens were used.
    pub fn used_secrets(&self) -> &UsedSecrets {
        &self.used_secrets
    }

    /// Signs the tokens that are kept in Secrets.
    pub fn sign_token(&self) -> SignToken {
        let issuer = self.issuer.clone();
        Arc::new(move |of| Ok(issuer.get().ok_or("this server issues no tokens")?.issue_for_secret(of)?))
    }

    /// The present state.
    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// The Secret behind a join token.
    pub fn secret_of(&self, token: &BootstrapToken) -> Result<Option<Secret>, Unreadable> {
        self.get("secrets", format!("{}/{}", bootstrap_token::NAMESPACE, token.secret_name()))
    }

    /// Whether `fact` is true of the stored objects now.
    pub fn holds(&self, fact: &Fact) -> Result<bool, Unreadable> {
        match fact {
            Fact::PodBoundTo { namespace, pod, node } => {
                let snapshot = self.store.snapshot();
                // A pod that is gone is nobody's: its agent learns from the 404 that it is, where a 403 would be a
                // riddle.
                Ok(snapshot.get("pods", &format!("{namespace}/{pod}")).is_none_or(|pod| is_on(pod, node)))
            }
            Fact::RelatedTo { node, kind, namespace, name } => {
                node_relations::are_related(&self.store.snapshot(), node, *kind, (namespace, name))
            }
            Fact::RequestMadeBy { request, user } => {
                let request: Option<CertificateSigningRequest> = self.get(REQUESTS, request.clone())?;
                Ok(request.and_then(|r| r.spec.username).as_deref() == Some(user))
            }
        }
    }

    fn get<K: fairlead_client::Object>(&self, resource: &'static str, key: String) -> Result<Option<K>, Unreadable> {
        let snapshot = self.store.snapshot();
        snapshot.get(resource, &key).map(|object| parse(resource, &key, object)).transpose()
    }
}

pub(super) fn is_on(pod: &Object, node: &str) -> bool {
    pod.header().field("spec.nodeName") == Some(node)
}

pub(super) fn parse<K: fairlead_client::Object>(
    resource: &'static str,
    key: &str,
    object: &Object,
) -> Result<K, Unreadable> {
    K::decode(&object.json()).map_err(|source| Unreadable { resource, key: key.to_owned(), source })
}
