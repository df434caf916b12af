//! Ports of this node that lead to one of its own pods (`hostPort`), as the datapath needs them.
//!
//! The one writer is the pods' side (`pods::host_ports`): it knows which pods have an address. No API object but the
//! Pod's is read.

use std::{net::Ipv4Addr, sync::Arc};

use imbl::OrdMap;
use k8s_openapi::api::core::v1 as core;

use super::{ObjectName, Protocol};

/// A `containers[].ports[]` entry with a `hostPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Of the container's port; may be empty.
    pub name: Arc<str>,
    /// `None`: every address of the node.
    pub host_ip: Option<Ipv4Addr>,
    /// Where the node answers.
    pub host_port: u16,
    /// Where the pod answers.
    pub container_port: u16,
    /// Together with the address and `host_port` unique on a node.
    pub protocol: Protocol,
}

/// The host ports of one pod that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodHostPorts {
    /// The owner of the ports, by which the table lists them.
    pub pod: ObjectName,
    /// Of the pod; its only backend.
    pub address: Ipv4Addr,
    /// Never empty.
    pub ports: Vec<HostPort>,
}

/// One snapshot; cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPorts {
    /// By uid: two pods may have one name for a while, the older on its way out.
    pub pods: OrdMap<Arc<str>, Arc<PodHostPorts>>,
    /// Whether all pods that an earlier agent left are in it. Until then nothing may be removed from the kernel.
    pub synced: bool,
}

impl PodHostPorts {
    /// Those of `pod` at `address`. `None` where it has none, and with `hostNetwork`, whose ports are the node's own.
    pub fn of(pod: &core::Pod, address: Ipv4Addr) -> Option<Self> {
        let spec = pod.spec.as_ref().filter(|spec| !spec.host_network.unwrap_or_default())?;
        let sidecars = spec.init_containers.iter().flatten().filter(|init| {
            // Others have ended before anybody could connect.
            init.restart_policy.as_deref() == Some("Always")
        });
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        let ports: Vec<HostPort> = ports.filter_map(HostPort::parse).collect();
        let name = |text: &Option<String>| text.clone().unwrap_or_default();
        let pod = ObjectName::new(name(&pod.metadata.namespace), name(&pod.metadata.name));
        (!ports.is_empty()).then_some(Self { pod, address, ports })
    }
}

impl HostPort {
    /// `None` where there is no host port, or one of IPv6. The API lets no other values through.
    fn parse(port: &core::ContainerPort) -> Option<Self> {
        let number = |value: i32| u16::try_from(value).ok().filter(|number| *number != 0);
        let host_ip = match port.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<Ipv4Addr>().ok()?).filter(|address| !address.is_unspecified()),
        };
        Some(Self {
            name: port.name.as_deref().unwrap_or_default().into(),
            host_ip,
            host_port: number(port.host_port?)?,
            container_port: number(port.container_port)?,
            protocol: Protocol::parse(port.protocol.as_deref()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);

    fn of(spec: serde_json::Value) -> Vec<(Option<Ipv4Addr>, u16, u16)> {
        let pod = serde_json::json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec});
        let pod = serde_json::from_value(pod).expect("a Pod");
        let ports = PodHostPorts::of(&pod, ADDRESS).map(|host_ports| host_ports.ports).unwrap_or_default();
        ports.iter().map(|port| (port.host_ip, port.host_port, port.container_port)).collect()
    }

    #[test]
    fn only_ports_with_a_host_port_count_and_those_of_sidecars_too() {
        let spec = serde_json::json!({
            "containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080}, {"containerPort": 81},
                {"containerPort": 82, "hostPort": 8082, "hostIP": "127.0.0.1"},
                {"containerPort": 83, "hostPort": 8083, "hostIP": "0.0.0.0"},
                {"containerPort": 84, "hostPort": 8084, "hostIP": "::1"}]}],
            "initContainers": [
                {"name": "first", "ports": [{"containerPort": 85, "hostPort": 8085}]},
                {"name": "beside", "restartPolicy": "Always", "ports": [{"containerPort": 86, "hostPort": 8086}]}]});
        let expected = [(None, 8080, 80), (Some(Ipv4Addr::LOCALHOST), 8082, 82), (None, 8083, 83), (None, 8086, 86)];
        assert_eq!(of(spec), expected);
    }

    #[test]
    fn a_pod_in_the_hosts_network_needs_nothing() {
        let ports = serde_json::json!([{"containerPort": 80, "hostPort": 80}]);
        assert!(of(serde_json::json!({"hostNetwork": true, "containers": [{"name": "c", "ports": ports}]})).is_empty());
    }
}
