//! The admission of a pod that is new to the node. Where labels or taints of the node reject it, the API is asked for
//! the Node first: this agent's watch of Nodes may be behind its watch of Pods.
//!
//! The rules are in `pods::admission`.

use std::{sync::Arc, time::Duration};

use fairlead_client::Api;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::{
    pods::{Context, admission::Rejection, recorder::EventType, spec, state::Ended},
    retry::retry_while_transient,
    world::Node,
};

/// What the node says to a new pod.
pub(super) enum Admission {
    /// It is admitted, or ends so.
    Decided(Option<Ended>),
    /// It would be rejected, if this agent knows the Node as it is.
    AskNode,
}

/// Takes the pod in, unless the node rejects it.
pub(super) fn admit(context: &Context, pod: &Arc<core::Pod>) -> Admission {
    match put(context, pod, context.node().as_deref()) {
        Ok(()) => Admission::Decided(None),
        Err(rejection) if rejection.depends_on_node() => Admission::AskNode,
        Err(rejection) => Admission::Decided(Some(reject(context, pod, &rejection))),
    }
}

fn put(context: &Context, pod: &Arc<core::Pod>, node: Option<&Node>) -> Result<(), Rejection> {
    let uid = spec::pod_ref(pod).uid;
    context.allocations.put(&uid, pod, context.this_node(node), Timestamp::now()).map(drop)
}

/// The end of a pod that the node does not admit.
fn reject(context: &Context, pod: &Arc<core::Pod>, rejection: &Rejection) -> Ended {
    let (reason, message) = (rejection.reason(), rejection.to_string());
    context.recorder.record(pod, None, EventType::Warning, reason, message.clone());
    Ended { reason, message: format!("Pod was rejected: {message}") }
}

impl Worker {
    /// Admits or rejects the pod by the Node as the API has it, and waits where the API is away. A pod that is deleted
    /// meanwhile stays undecided: it only ends. Returns whether the worker goes on; not once it is stopped.
    pub(super) async fn decide_admission(&mut self, stop: &CancellationToken) -> bool {
        let context = self.context.clone();
        let node = current_node(&context);
        tokio::pin!(node);
        let node = loop {
            tokio::select! {
                () = stop.cancelled() => return false,
                node = &mut node => break node,
                input = self.inputs.recv() => {
                    let Some(input) = input else { return false };
                    self.take(input);
                    if self.state.gone || self.desired.metadata.deletion_timestamp.is_some() {
                        return true;
                    }
                }
            }
        };
        match put(&context, &self.desired, node.as_ref()) {
            Ok(()) => self.take_allocation(),
            Err(rejection) => self.state.ended = Some(reject(&context, &self.desired, &rejection)),
        }
        true
    }
}

/// A request that takes longer is sent again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// This node as the API has it now; `None` where it has none.
async fn current_node(context: &Context) -> Option<Node> {
    let nodes = Api::<core::Node>::all(context.client.clone());
    let ask = || async {
        let late = |_| Err(kube::Error::Service(format!("no answer within {ANSWERED_WITHIN:?}").into()));
        let answer = tokio::time::timeout(ANSWERED_WITHIN, nodes.get(&context.config.node_name));
        answer.await.unwrap_or_else(late)
    };
    match retry_while_transient("read the Node that rejects a pod", is_not_told, ask).await {
        Ok(node) => Some(Node::from(&node)),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot read the Node that rejects a pod");
            None
        }
    }
}

/// Whether an answer leaves open what the Node is: all but that there is none. A refused credential is renewed.
fn is_not_told(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if status.code == 404)
}
