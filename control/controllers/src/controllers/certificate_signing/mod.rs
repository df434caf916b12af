//! Certificate signing: approves and signs valid requests of nodes, denies requests that can never be valid, signs
//! those for users that somebody approved, and deletes old ones.
//!
//! [`decision`] and [`reserved`] decide; this file reads and writes. A request that waits for its Node is decided on
//! again when that Node changes.

mod decision;
mod denial;
mod reserved;
mod user_certificate;

use std::{sync::Arc, time::Duration};

use fairlead_client::{Api, node_silence::silent_in_annotations};
use fairlead_pki::Authority;
use k8s_openapi::{
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;

use self::decision::{Grant, GrantedSubject, SigningDecision};
use super::{Context, node_lifecycle::Heartbeats};
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks, is_gone_or_taken},
    objects::informer_index::requested_by,
};

pub use self::{decision::requesting_node, reserved::ControlNames};

const COMPONENT: &str = "certificate-controller";
/// Answered requests are kept this long for people to look at, open ones a day, as in Kubernetes.
const KEEP_ANSWERED: Duration = Duration::from_secs(3600);
const KEEP_OPEN: Duration = Duration::from_secs(24 * 3600);

struct Controller {
    requests: Api<CertificateSigningRequest>,
    nodes: Arc<Informer<Node>>,
    heartbeats: Arc<Mutex<Heartbeats>>,
    authority: Arc<Authority>,
    control: ControlNames,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        requests: Api::all(context.client.clone()),
        nodes: informers.nodes.clone(),
        heartbeats: context.heartbeats.clone(),
        authority: context.config.authority.clone(),
        control: context.config.control_names.clone(),
    };
    let requests = informers.signing_requests.clone();
    Startup::new(COMPONENT, controller)
        .on(&informers.signing_requests, |_, change, queue| {
            if change.new.is_some() {
                queue.add(change.key.clone());
            }
        })
        .on(&informers.nodes, move |_, change, queue| {
            let addresses = |node: &Node| node.status.as_ref().and_then(|s| s.addresses.clone());
            if change.old.as_deref().map(addresses) != change.new.as_deref().map(addresses) {
                requests.indexed(&requested_by(&change.key.name)).iter().for_each(|csr| queue.add(Key::of(&**csr)));
            }
        })
        .start(tasks, 4, Controller::reconcile);
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        // Read from the API: the event of our own approval must not look like a request that still needs its
        // certificate.
        let live = self.requests.get_opt(&key.name).await.map_err(Failure::request("read a signing request"))?;
        let Some(csr) = live else { return Ok(Outcome::Done) };
        let Some(left) = time_to_live(&csr, Timestamp::now()) else { return self.delete(&csr).await };
        match self.decide(&csr) {
            SigningDecision::Leave | SigningDecision::Wait => {}
            SigningDecision::Deny(denial) => {
                let mut metadata = version(&csr);
                if let Some(left) = denial.silent_in() {
                    metadata["annotations"] = json!(silent_in_annotations(left));
                }
                let why = (denial.reason(), &*denial.to_string());
                self.add_condition(&csr, metadata, "approval", "Denied", why).await?;
                tracing::info!(request = %key, %denial, "denied a signing request");
            }
            SigningDecision::Fail(denial) => {
                let why = ("SignerValidationFailed", &*denial.to_string());
                self.add_condition(&csr, version(&csr), "status", "Failed", why).await?;
                tracing::info!(request = %key, %denial, "cannot sign a signing request");
            }
            SigningDecision::Sign(grant) => {
                let why = ("AutoApproved", "approved by fairlead for a node of the cluster");
                let approved = self.add_condition(&csr, version(&csr), "approval", "Approved", why).await?;
                self.issue(&approved, &grant).await?;
            }
        }
        Ok(Outcome::After(left))
    }

    fn decide(&self, csr: &CertificateSigningRequest) -> SigningDecision {
        let node = requesting_node(csr).and_then(|name| self.nodes.get(&Key::cluster(name)));
        let until_silent = |name: &str| self.heartbeats.lock().until_certain(&Key::cluster(name), Instant::now());
        decision::decide(csr, node.as_deref(), &self.nodes.all(), &self.control, &until_silent)
    }

    /// Adds a condition with its reason and message, and `metadata`, by a subresource, unless it is there or the
    /// request changed since it was read. Returns the request as it then is.
    async fn add_condition(
        &self,
        csr: &CertificateSigningRequest,
        metadata: serde_json::Value,
        subresource: &str,
        kind: &str,
        (reason, message): (&str, &str),
    ) -> Result<CertificateSigningRequest, Failure> {
        let mut conditions = csr.status.clone().and_then(|s| s.conditions).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == kind) {
            return Ok(csr.clone());
        }
        let now = Time(Timestamp::now());
        conditions.push(CertificateSigningRequestCondition {
            type_: kind.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        });
        let patch = Patch::Merge(json!({"metadata": metadata, "status": {"conditions": conditions}}));
        let patched = self.requests.patch_subresource(subresource, name(csr), &PatchParams::default(), &patch).await;
        patched.map_err(Failure::request("answer a signing request"))
    }

    async fn issue(&self, csr: &CertificateSigningRequest, grant: &Grant) -> Result<(), Failure> {
        let now = OffsetDateTime::now_utc();
        let Grant { request, subject, lifetime } = grant;
        let signed = match subject {
            GrantedSubject::Node(subject, usage) => self.authority.sign(request, subject, *usage, *lifetime, now),
            GrantedSubject::AsRequested(subject) => self.authority.sign_as_requested(request, subject, *lifetime, now),
        };
        let pem = signed.map_err(|error| Failure::Malformed { what: "signing request", message: error.to_string() })?;
        let certificate = k8s_openapi::ByteString(pem.into_bytes());
        let patch = Patch::Merge(json!({"metadata": version(csr), "status": {"certificate": certificate}}));
        let patched = self.requests.patch_status(name(csr), &PatchParams::default(), &patch).await;
        patched.map_err(Failure::request("store a signed certificate"))?;
        tracing::info!(request = name(csr), signer = csr.spec.signer_name, "signed a certificate");
        Ok(())
    }

    async fn delete(&self, csr: &CertificateSigningRequest) -> Result<Outcome, Failure> {
        let preconditions = Preconditions { uid: csr.metadata.uid.clone(), resource_version: None };
        match self.requests.delete(name(csr), &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
            Err(error) => Err(Failure::request("delete an old signing request")(error)),
        }
    }
}

fn name(csr: &CertificateSigningRequest) -> &str {
    csr.metadata.name.as_deref().unwrap_or_default()
}

/// Makes a patch fail where the request is no longer the one that was decided on: a person may have denied it
/// meanwhile.
fn version(csr: &CertificateSigningRequest) -> serde_json::Value {
    json!({"uid": csr.metadata.uid, "resourceVersion": csr.metadata.resource_version})
}

/// How long the request is kept from now; `None` once it is old.
fn time_to_live(csr: &CertificateSigningRequest, now: Timestamp) -> Option<Duration> {
    let answered = csr.status.as_ref().is_some_and(|s| s.certificate.is_some() || s.conditions.is_some());
    let keep = if answered { KEEP_ANSWERED } else { KEEP_OPEN };
    let Some(created) = &csr.metadata.creation_timestamp else { return Some(keep) };
    let age = Duration::try_from(now.duration_since(created.0)).unwrap_or_default();
    keep.checked_sub(age).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_answered_request_is_kept_an_hour_and_an_open_one_a_day() {
        let now: Timestamp = "2030-01-02T00:00:00Z".parse().expect("a valid time");
        let left = |created: &str, status: Value| {
            let csr = json!({"metadata": {"creationTimestamp": created}, "status": status,
                "spec": {"request": "", "signerName": "s"}});
            time_to_live(&serde_json::from_value(csr).expect("a valid request"), now)
        };
        let answered = json!({"certificate": "YQ=="});
        assert_eq!(left("2030-01-01T23:30:00Z", answered.clone()), Some(Duration::from_secs(1800)));
        assert_eq!(left("2030-01-01T22:30:00Z", answered.clone()), None);
        assert_eq!(left("2030-01-01T22:30:00Z", json!({})), Some(Duration::from_secs(24 * 3600 - 5400)));
        assert_eq!(left("2029-12-31T22:30:00Z", json!({})), None);
        assert_eq!(left("2031-01-01T00:00:00Z", answered), Some(KEEP_ANSWERED), "a clock that is ahead");
    }
}
