//! The status of a pod, from what is known of it: pure. `act` writes it.

mod conditions;
mod containers;
mod patch;
mod phase;
mod qos;
mod resize;
mod taken_down;

use std::net::Ipv4Addr;

use containers::ContainerKind;
pub use containers::FAILURE_SHOWN;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{HostIP, Pod, PodIP, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
pub use patch::patch;
pub use phase::Phase;
pub use qos::{oom_score_adj, qos_class};
pub use taken_down::taken_down;

use super::state::PodState;

/// The node that reports a status, as far as the status names it.
#[derive(Clone, Copy, Debug)]
pub struct ReportingNode<'a> {
    /// `status.hostIP` of its pods.
    pub node_ip: Ipv4Addr,
    /// Of container ids: `docker`.
    pub scheme: &'a str,
}

/// The status that `pod` should have. What others wrote (their conditions, times of transitions that did not happen) is
/// carried over.
pub fn status(pod: &Pod, state: &PodState, node: ReportingNode<'_>, now: Timestamp) -> PodStatus {
    let current = pod.status.clone().unwrap_or_default();
    if current.phase.as_deref().is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"))
        && state.containers.is_empty()
    {
        // Ended before this agent knew it, and nothing is left that could say more.
        return current;
    }
    let phase = phase::phase(pod, state);
    let statuses = |kind| containers::statuses(pod, state, kind, node, now);
    let (reason, message) = match &state.ended {
        Some(ended) => (Some(ended.reason.to_owned()), Some(ended.message.clone())),
        None => (current.reason.clone(), current.message.clone()),
    };
    // The address stays in the status of a pod that has ended, as in Kubernetes.
    let ip = state
        .ip()
        .map(|ip| ip.to_string())
        .or_else(|| current.pod_ip.clone().filter(|_| phase.is_final() || state.sandboxes > 0));
    PodStatus {
        phase: Some(phase.to_string()),
        observed_generation: pod.metadata.generation,
        reason,
        message,
        host_ip: Some(node.node_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: node.node_ip.to_string() }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: Some(current.start_time.clone().unwrap_or(Time(state.started_at))),
        qos_class: Some(current.qos_class.clone().unwrap_or_else(|| qos_class(pod).to_owned())),
        init_container_statuses: statuses(ContainerKind::Init),
        container_statuses: statuses(ContainerKind::App),
        ephemeral_container_statuses: statuses(ContainerKind::Ephemeral),
        conditions: Some(conditions::conditions(pod, state, phase, now)),
        ..current
    }
}
