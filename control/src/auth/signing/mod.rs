//! Answers signing requests of nodes: approves and signs what is due, denies what never will be, and clears away old ones.
//!
//! The shell around [`decision`]: it watches, looks Nodes up and writes.

mod decision;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Node};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::pki::{Authority, AuthorityError};
use decision::{Decision, Grant};

/// How often a request is looked at again whose node is not there yet.
const RETRY: Duration = Duration::from_secs(1);
/// After so long, nothing waits any more; the node asks again when it starts again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Answered requests are kept this long for people to look at, open ones a day, as in Kubernetes.
const KEEP_ANSWERED: Duration = Duration::from_secs(3600);
const KEEP_OPEN: Duration = Duration::from_secs(24 * 3600);
const SWEEP: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
enum SigningError {
    #[error("the API refused")]
    Api(#[from] kube::Error),
    #[error("signing failed")]
    Sign(#[from] AuthorityError),
}

/// Signs until `stop`.
pub async fn run(client: Client, authority: Arc<Authority>, stop: CancellationToken) {
    let signer = Signer { requests: Api::all(client.clone()), nodes: Api::all(client), authority };
    let events = watcher(signer.requests.clone(), watcher::Config::default()).default_backoff().applied_objects();
    let mut events = events.boxed();
    let mut waiting: BTreeMap<String, tokio::time::Instant> = BTreeMap::new();
    let mut retry = tokio::time::interval(RETRY);
    // It stands still while nothing waits, and must not make up for that.
    retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = events.try_next() => match event {
                Ok(Some(csr)) => {
                    let name = csr.name_any();
                    if signer.answer(&name).await {
                        waiting.entry(name).or_insert_with(tokio::time::Instant::now);
                    } else {
                        waiting.remove(&name);
                    }
                }
                Ok(None) => return,
                Err(e) => tracing::warn!(error = &e as &dyn std::error::Error, "cannot watch signing requests"),
            },
            _ = retry.tick(), if !waiting.is_empty() => {
                for (name, since) in waiting.clone() {
                    if !signer.answer(&name).await || since.elapsed() > PATIENCE {
                        waiting.remove(&name);
                    }
                }
            }
            _ = sweep.tick() => signer.sweep(Timestamp::now()).await,
        }
    }
}

struct Signer {
    requests: Api<CertificateSigningRequest>,
    nodes: Api<Node>,
    authority: Arc<Authority>,
}

impl Signer {
    /// Answers one request; says whether it should be looked at again.
    async fn answer(&self, name: &str) -> bool {
        match self.try_answer(name).await {
            Ok(again) => again,
            Err(e) => {
                tracing::warn!(request = name, error = &e as &dyn std::error::Error, "cannot answer a signing request");
                true
            }
        }
    }

    async fn try_answer(&self, name: &str) -> Result<bool, SigningError> {
        // As it is now: the event of our own approval must not look like a request that still wants its certificate.
        let Some(csr) = self.requests.get_opt(name).await? else { return Ok(false) };
        let csr = &csr;
        let node = match decision::requesting_node(csr) {
            Some(name) => self.nodes.get_opt(name).await?,
            None => None,
        };
        match decision::decide(csr, node.as_ref()) {
            Decision::Leave => Ok(false),
            Decision::Wait => Ok(true),
            Decision::Deny(why) => {
                self.condition(csr, "Denied", "NotPermitted", &why).await?;
                tracing::info!(request = csr.name_any(), why, "denied a signing request");
                Ok(false)
            }
            Decision::Sign(grant) => {
                self.condition(csr, "Approved", "AutoApproved", "approved by fairlead for a node of the cluster")
                    .await?;
                self.issue(csr, &grant).await?;
                Ok(false)
            }
        }
    }

    async fn condition(
        &self,
        csr: &CertificateSigningRequest,
        kind: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), kube::Error> {
        let mut conditions = csr.status.clone().and_then(|s| s.conditions).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == kind) {
            return Ok(());
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let added = json!({"type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": now});
        conditions.push(serde_json::from_value(added).map_err(kube::Error::SerdeError)?);
        let patch = json!({"status": {"conditions": conditions}});
        let patch = Patch::Merge(patch);
        self.requests.patch_subresource("approval", &csr.name_any(), &PatchParams::default(), &patch).await.map(|_| ())
    }

    async fn issue(&self, csr: &CertificateSigningRequest, grant: &Grant) -> Result<(), SigningError> {
        let now = OffsetDateTime::now_utc();
        let pem = self.authority.sign(&grant.request, &grant.subject, grant.usage, grant.lifetime, now)?;
        let status = json!({"status": {"certificate": k8s_openapi::ByteString(pem.into_bytes())}});
        self.requests.patch_status(&csr.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
        tracing::info!(request = csr.name_any(), subject = grant.subject.common_name, "signed a certificate");
        Ok(())
    }

    async fn sweep(&self, now: Timestamp) {
        let all = match self.requests.list(&ListParams::default()).await {
            Ok(all) => all,
            Err(e) => return tracing::warn!(error = &e as &dyn std::error::Error, "cannot list signing requests"),
        };
        for csr in all.items.iter().filter(|csr| is_old(csr, now)) {
            if let Err(e) = self.requests.delete(&csr.name_any(), &DeleteParams::default()).await {
                tracing::warn!(request = csr.name_any(), error = &e as &dyn std::error::Error, "cannot delete it");
            }
        }
    }
}

fn is_old(csr: &CertificateSigningRequest, now: Timestamp) -> bool {
    let Some(created) = &csr.metadata.creation_timestamp else { return false };
    let answered = csr.status.as_ref().is_some_and(|s| s.certificate.is_some() || s.conditions.is_some());
    let keep = if answered { KEEP_ANSWERED } else { KEEP_OPEN };
    now.duration_since(created.0) > jiff::SignedDuration::try_from(keep).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_answered_request_is_kept_an_hour_and_an_open_one_a_day() {
        let now: Timestamp = "2030-01-02T00:00:00Z".parse().unwrap();
        let csr = |created: &str, status: Value| {
            serde_json::from_value(json!({"metadata": {"creationTimestamp": created}, "status": status,
                "spec": {"request": "", "signerName": "s"}}))
            .unwrap()
        };
        let answered = json!({"certificate": "YQ=="});
        assert!(!is_old(&csr("2030-01-01T23:30:00Z", answered.clone()), now));
        assert!(is_old(&csr("2030-01-01T22:30:00Z", answered), now));
        assert!(!is_old(&csr("2030-01-01T22:30:00Z", json!({})), now));
        assert!(is_old(&csr("2029-12-31T22:30:00Z", json!({})), now));
    }
}
