//! Ports of its node that a pod takes (`hostPort`).

use k8s_openapi::api::core::v1::{ContainerPort, PodSpec};

/// A port of a node, taken by a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Empty for all addresses.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// 1 to 65535.
    pub port: i32,
}

impl HostPort {
    /// Those of all containers that run as long as the pod. On the host's network, where every port of a container is
    /// one of the host, the API fills in `hostPort`. Source: `GetHostPorts` of the scheduler.
    pub fn all_of(spec: &PodSpec) -> Vec<Self> {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let containers = spec.containers.iter().chain(sidecars);
        containers.flat_map(|container| container.ports.iter().flatten()).filter_map(Self::of).collect()
    }

    fn of(port: &ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|number| *number > 0)?;
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Some(Self {
            address: text(&port.host_ip).filter(|address| address != "0.0.0.0").unwrap_or_default(),
            protocol: text(&port.protocol).unwrap_or_else(|| "TCP".to_owned()),
            port: number,
        })
    }

    /// Whether both cannot be on one node.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address.is_empty() || other.address.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn one(port: Value) -> HostPort {
        let spec = json!({ "containers": [{ "name": "c", "ports": [port] }] });
        HostPort::all_of(&serde_json::from_value(spec).expect("a valid spec")).remove(0)
    }

    #[test]
    fn a_port_conflicts_with_the_same_of_an_address_in_common() {
        let all = one(json!({ "containerPort": 80, "hostPort": 8080 }));
        for (other, conflicts) in [
            (json!({ "containerPort": 81, "hostPort": 8080, "protocol": "TCP", "hostIP": "0.0.0.0" }), true),
            (json!({ "containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1" }), true),
            (json!({ "containerPort": 80, "hostPort": 8080, "protocol": "UDP" }), false),
            (json!({ "containerPort": 80, "hostPort": 8081 }), false),
        ] {
            let other = one(other);
            assert_eq!((all.conflicts_with(&other), other.conflicts_with(&all)), (conflicts, conflicts), "{other:?}");
        }
        let on = |address: &str| one(json!({ "containerPort": 80, "hostPort": 80, "hostIP": address }));
        assert!(!on("127.0.0.1").conflicts_with(&on("127.0.0.2")));
        assert!(on("127.0.0.1").conflicts_with(&on("127.0.0.1")));
    }

    #[test]
    fn ports_of_sidecars_count_and_those_of_other_init_containers_do_not() {
        let ports = |number: i32| json!([{ "containerPort": number, "hostPort": number }, { "containerPort": 1 }]);
        let spec = json!({ "containers": [{ "name": "c", "ports": ports(80) }], "initContainers": [
            { "name": "first", "ports": ports(81) },
            { "name": "beside", "restartPolicy": "Always", "ports": ports(82) }] });
        let found = HostPort::all_of(&serde_json::from_value(spec).expect("a valid spec"));
        assert_eq!(found.iter().map(|port| port.port).collect::<Vec<_>>(), [80, 82]);
    }
}
