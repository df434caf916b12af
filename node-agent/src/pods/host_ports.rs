//! Publishes the host ports of this node's pods to the datapath: from when a pod has an address until its sandbox is
//! removed, ready or not.
//!
//! Each worker updates its own pod's entry; what the entry says is decided here.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::state::{PodState, Sandbox};
use crate::world::{HostPorts, PodHostPorts};

/// The writing end of the node's [`HostPorts`].
pub struct HostPortPublisher(watch::Sender<HostPorts>);

impl HostPortPublisher {
    /// Publishes through `sender`.
    pub fn new(sender: watch::Sender<HostPorts>) -> Self {
        Self(sender)
    }

    /// Brings the pod's entry to its state. Readers are notified only of changes.
    pub fn update(&self, pod: &Pod, state: &PodState) {
        let Some(uid) = pod.metadata.uid.as_deref() else { return };
        self.0.send_if_modified(|published| {
            let old = published.pods.get(uid);
            let new = entry(pod, state, old);
            if old == new.as_ref() {
                return false;
            }
            match new {
                Some(new) => published.pods.insert(uid.into(), new),
                None => published.pods.remove(uid),
            };
            true
        });
    }

    /// Removes the entry of a pod that has ended.
    pub fn forget(&self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.0.send_if_modified(|published| published.pods.remove(uid).is_some());
    }

    /// Marks the entries complete: every pod that an earlier agent left has its own. Those of pods that are no more are
    /// removed.
    pub fn complete(&self, is_there: impl Fn(&str) -> bool) {
        self.0.send_if_modified(|published| {
            let gone: Vec<_> = published.pods.keys().filter(|uid| !is_there(uid)).cloned().collect();
            gone.iter().for_each(|uid| drop(published.pods.remove(uid)));
            !std::mem::replace(&mut published.synced, true) || !gone.is_empty()
        });
    }
}

/// The entry of a pod. While the address of an adopted sandbox is being asked for, the one in the pod's status stays:
/// the kernel goes on serving it.
fn entry(pod: &Pod, state: &PodState, old: Option<&Arc<PodHostPorts>>) -> Option<Arc<PodHostPorts>> {
    let address = match &state.sandbox {
        Sandbox::Ready { ip, .. } => Some(*ip),
        Sandbox::Found { .. } => pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()?.parse().ok()),
        Sandbox::Making { .. } => return old.cloned(),
        Sandbox::Absent | Sandbox::Dead { .. } | Sandbox::Removing | Sandbox::Failed(_) => None,
    };
    PodHostPorts::of(pod, address?).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);

    fn pod(uid: &str) -> Pod {
        let value = serde_json::json!({
            "metadata": {"namespace": "default", "name": "web", "uid": uid},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]},
            "status": {"podIP": ADDRESS.to_string()}});
        serde_json::from_value(value).expect("a Pod")
    }

    fn in_state(sandbox: Sandbox) -> PodState {
        PodState { sandbox, ..PodState::default() }
    }

    #[test]
    fn a_pods_host_ports_are_published_from_its_address_on_until_its_sandbox_is_removed() {
        let (sender, receiver) = watch::channel(HostPorts::default());
        let (publisher, pod) = (HostPortPublisher::new(sender), pod("1"));
        let address = || receiver.borrow().pods.get("1").map(|entry| entry.address);
        let id = || "s".to_owned();
        publisher.update(&pod, &in_state(Sandbox::Making { id: None }));
        assert_eq!(address(), None, "it has no address yet");
        publisher.update(&pod, &in_state(Sandbox::Ready { id: id(), ip: ADDRESS }));
        assert_eq!(address(), Some(ADDRESS));
        publisher.update(&pod, &in_state(Sandbox::Removing));
        assert_eq!(address(), None);
    }

    #[test]
    fn what_an_earlier_agent_left_goes_on_while_its_address_is_asked_for() {
        let (sender, mut receiver) = watch::channel(HostPorts::default());
        let (publisher, pod) = (HostPortPublisher::new(sender), pod("1"));
        let found = Sandbox::Found { id: "s".into(), adopt_at: jiff::Timestamp::MIN };
        for sandbox in [found, Sandbox::Making { id: Some("s".into()) }] {
            publisher.update(&pod, &in_state(sandbox));
            assert_eq!(receiver.borrow_and_update().pods.get("1").map(|entry| entry.address), Some(ADDRESS));
        }
        publisher.update(&pod, &in_state(Sandbox::Ready { id: "s".into(), ip: ADDRESS }));
        assert!(!receiver.has_changed().expect("the publisher is there"), "nothing is new");
        publisher.complete(|_| true);
        assert!(receiver.borrow_and_update().synced);
    }
}
