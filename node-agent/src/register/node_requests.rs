//! The requests about the Node object and the node's Lease.

use std::time::{Duration, Instant};

use fairlead_client::{Api, from_value};
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{live_client::LiveClient, node_object::NodeDescription};
use crate::deadline::{AnswerError, answered};

/// As the kubelet.
const LEASE_SECONDS: i32 = 40;

/// Sends requests one after the other, each of which must be answered within `limit`.
pub struct NodeRequests<'a> {
    pub api: &'a LiveClient,
    /// Of one request.
    pub limit: Duration,
}

impl NodeRequests<'_> {
    /// The answer to one request. After none in time the connections that were silent since are given up: one that
    /// leads nowhere says so only when a ping is not answered, and until then all that is asked over it is lost, too.
    pub async fn answer<T>(&self, answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, AnswerError> {
        let sent = Instant::now();
        let answer = answered(self.limit, answer).await;
        if matches!(answer, Err(AnswerError::Late(_))) {
            self.api.forget_silent_since(sent);
        }
        answer
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.api.client().clone())
    }

    /// Makes the Node object where it is missing and writes its labels and status.
    pub async fn register(&self, node: &NodeDescription) -> Result<(), AnswerError> {
        let api = self.nodes();
        let new = from_value(&node.new_object()).map_err(kube::Error::SerdeError)?;
        match self.answer(api.create(&PostParams::default(), &new)).await {
            Ok(_) => tracing::info!(node = node.name, "registered"),
            Err(AnswerError::Failed(kube::Error::Api(status))) if status.reason == "AlreadyExists" => {
                let labels = Patch::Merge(json!({"metadata": {"labels": node.labels()}}));
                self.answer(api.patch(&node.name, &PatchParams::default(), &labels)).await?;
            }
            Err(error) => return Err(error),
        }
        self.write_status(node).await
    }

    /// Writes the whole status, with the conditions that others wrote.
    pub async fn write_status(&self, node: &NodeDescription) -> Result<(), AnswerError> {
        let api = self.nodes();
        let conditions = self.answer(api.get(&node.name)).await?.status.and_then(|status| status.conditions);
        let conditions = serde_json::to_value(conditions).map_err(kube::Error::SerdeError)?;
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        let status = Patch::Strategic(json!({"status": node.status(&conditions, Timestamp::now())}));
        self.answer(api.patch_status(&node.name, &PatchParams::default(), &status)).await?;
        Ok(())
    }

    /// Renews the Lease; once more, at once, after no answer in time: over a new connection where the old one is
    /// silent. The control service takes a node for lost four beats after its last renewal.
    pub async fn renew_lease(&self, name: &str) -> Result<(), AnswerError> {
        match self.write_lease(name).await {
            Err(late @ AnswerError::Late(_)) => {
                log_failed_renewal(&late);
                self.write_lease(name).await
            }
            answer => answer,
        }
    }

    async fn write_lease(&self, name: &str) -> Result<(), AnswerError> {
        let api: Api<Lease> = Api::namespaced(self.api.client().clone(), "kube-node-lease");
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let spec = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
        match self.answer(api.patch(name, &PatchParams::default(), &Patch::Merge(spec.clone()))).await {
            Ok(_) => Ok(()),
            Err(AnswerError::Failed(kube::Error::Api(status))) if status.code == 404 => {
                let mut lease = spec;
                lease["metadata"] = json!({"name": name, "namespace": "kube-node-lease"});
                let lease: Lease = from_value(&lease).map_err(kube::Error::SerdeError)?;
                self.answer(api.create(&PostParams::default(), &lease)).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }
}

/// Without an answer nobody knows whether the Lease was renewed.
pub fn log_failed_renewal(error: &AnswerError) {
    match error {
        AnswerError::Late(limit) => {
            tracing::warn!("no answer to the Lease's renewal within {} s", limit.as_secs_f32());
        }
        AnswerError::Failed(error) => {
            tracing::warn!(error = error as &dyn std::error::Error, "cannot renew the node's Lease");
        }
    }
}
