//! What others hold of a pod's worker: the way to tell it something, and what it shows of itself.

use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::mpsc;

use crate::{
    pods::{
        outcome::Outcome,
        probe::Verdict,
        state::{Ended, PodState},
    },
    runtime::{PodRef, Summary},
};

/// What a worker takes in.
#[derive(Debug)]
pub enum Input {
    /// A version of the Pod, new or not.
    Pod(Arc<Pod>),
    /// The Pod is not in the API any more.
    Gone,
    /// The runtime says that this container or sandbox has ended.
    Ended(String),
    /// All containers of the pod that the runtime has.
    Listed(Vec<Summary>),
    /// The node ends the pod, at once.
    Evicted(Ended),
    /// An object that a failure waits for has changed.
    ObjectChanged,
    /// Boxed: the queue of every pod has room for many inputs, and the others are small.
    Outcome(Box<Outcome>),
    /// A probe's thresholds were crossed.
    Probe(Verdict),
}

/// What others may see of a pod.
#[derive(Clone, Debug)]
pub struct View {
    /// As the worker last saw it in the API, whatever of its resources is allocated.
    pub pod: Arc<Pod>,
    /// As it should be in the API.
    pub status: PodStatus,
    /// What the worker knows of its containers.
    pub state: PodState,
}

/// One worker, from outside. Cloning shares it.
#[derive(Clone)]
pub struct Handle {
    pub(super) pod: Arc<PodRef>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) view: Arc<ArcSwap<View>>,
}

impl Handle {
    /// Whose worker it is.
    pub fn pod(&self) -> &PodRef {
        &self.pod
    }

    /// The pod as its worker last reported it.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Ignored where the worker has ended meanwhile.
    pub async fn send(&self, input: Input) {
        send(&self.inputs, input).await;
    }
}

/// Tells a worker `input`. Not an error where it has ended.
pub async fn send(sender: &mpsc::Sender<Input>, input: Input) {
    if sender.send(input).await.is_err() {
        tracing::debug!("the worker has ended");
    }
}
