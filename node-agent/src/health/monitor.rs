//! Keeps what the Node object's conditions say equal to what is measured.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::probes::ProbeResults;
use crate::{
    eviction_thresholds::EvictionThresholds,
    network::Network,
    proxy::Proxy,
    register::{
        conditions::{PressureHistory, Pressures},
        measurements::Measured,
        node_object::{NodeDescription, NodeState},
    },
};

/// As the kubelet's `nodeStatusUpdateFrequency`.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// Where the state of the node's parts is read.
#[derive(Clone)]
pub struct Parts {
    /// What the probes of the runtime and of the DNS server found last.
    pub probes: watch::Receiver<ProbeResults>,
    /// For the datapath's problems.
    pub proxy: Proxy,
    /// For the pod network's problem.
    pub network: Arc<Network>,
    /// Why this node cannot go on with the pod subnet that it has; `None` while it can.
    pub subnet: watch::Receiver<Option<String>>,
    /// Below these a resource counts as short.
    pub thresholds: EvictionThresholds,
}

/// Measures until `stop`; a change is in `node` at once.
pub async fn run(mut parts: Parts, measured: Measured, node: watch::Sender<NodeDescription>, stop: CancellationToken) {
    let mut history = PressureHistory::default();
    let mut network = ConfirmedProblem::default();
    loop {
        let (measured, thresholds) = (measured.clone(), parts.thresholds.clone());
        let measure = move || Pressures::of(&measured.take(), &thresholds);
        let pressures = match tokio::task::spawn_blocking(measure).await {
            Ok(pressures) => pressures,
            Err(error) => {
                tracing::error!(%error, "measuring this node ended abnormally");
                Pressures::default()
            }
        };
        let state = NodeState {
            pressures: history.add(pressures, Instant::now()),
            network: network.add(parts.network.problem()).or_else(|| parts.subnet.borrow().clone()),
            runtime: parts.probes.borrow_and_update().runtime.clone(),
            // A Service that cannot be served is no reason to take no pods; a datapath that serves none is.
            datapath: parts.proxy.is_empty().then(|| parts.proxy.failure()).flatten(),
            ending: None,
        };
        node.send_if_modified(|node| {
            let differs = node.state.ending.is_none() && node.state != state;
            if differs {
                node.state = state;
            }
            differs
        });
        tokio::select! {
            () = stop.cancelled() => return,
            _ = parts.probes.changed() => {}
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}

/// A problem counts once it is found twice running: the network retries within less than a measurement.
#[derive(Debug, Default)]
struct ConfirmedProblem {
    last: bool,
}

impl ConfirmedProblem {
    fn add(&mut self, found: Option<String>) -> Option<String> {
        let last = std::mem::replace(&mut self.last, found.is_some());
        found.filter(|_| last)
    }
}
