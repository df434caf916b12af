//! Variables that name the Services a pod may use, as Docker links once did.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;

use crate::{
    pods::spec,
    world::{Protocol, Service, ServiceKind, World},
};

/// Of every Service with a ClusterIP in the pod's namespace, unless it wants none, and always of `default/kubernetes`.
pub fn service_variables(pod: &Pod, world: &World) -> Vec<(String, String)> {
    let namespace = spec::pod_ref(pod).namespace;
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let mut variables = Vec::new();
    for (name, service) in &world.services {
        let is_kubernetes = &*name.namespace == "default" && &*name.name == "kubernetes";
        if is_kubernetes || (links && *name.namespace == *namespace) {
            variables.extend(of_service(service));
        }
    }
    variables
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let ServiceKind::ClusterIp(addresses) = &service.kind else { return Vec::new() };
    let (Some(address), Some(first)) = (addresses.first(), service.ports.first()) else { return Vec::new() };
    let name = upper(&service.name.name);
    let mut variables = vec![
        (format!("{name}_SERVICE_HOST"), address.to_string()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
        (format!("{name}_PORT"), url(*address, first.protocol, first.port)),
    ];
    for port in &service.ports {
        if !port.name.is_empty() {
            variables.push((format!("{name}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string()));
        }
        let protocol = protocol(port.protocol);
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.extend([
            (prefix.clone(), url(*address, port.protocol, port.port)),
            (format!("{prefix}_PROTO"), protocol.to_owned()),
            (format!("{prefix}_PORT"), port.port.to_string()),
            (format!("{prefix}_ADDR"), address.to_string()),
        ]);
    }
    variables
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn url(address: Ipv4Addr, by: Protocol, port: u16) -> String {
    format!("{}://{address}:{port}", protocol(by))
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::world::{ObjectName, ServicePort};

    fn world(names: &[(&str, &str)]) -> World {
        let mut world = World::default();
        for (namespace, name) in names {
            let name = ObjectName::new(*namespace, *name);
            let port = ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None };
            let service = Service {
                revision: 1,
                ..Service::new(name.clone(), ServiceKind::ClusterIp(vec![Ipv4Addr::new(10, 96, 0, 7)]), vec![port])
            };
            world.services.insert(name, Arc::new(service));
        }
        world
    }

    fn variables(links: Option<bool>) -> BTreeMap<String, String> {
        let pod = serde_json::json!({ "metadata": { "namespace": "shop" }, "spec": { "containers": [], "enableServiceLinks": links } });
        let pod = serde_json::from_value(pod).unwrap();
        let world = world(&[("default", "kubernetes"), ("shop", "my-web"), ("other", "db")]);
        service_variables(&pod, &world).into_iter().collect()
    }

    #[test]
    fn services_of_the_namespace_are_named_in_both_old_styles() {
        let variables = variables(None);
        for (name, value) in [
            ("MY_WEB_SERVICE_HOST", "10.96.0.7"),
            ("MY_WEB_SERVICE_PORT", "80"),
            ("MY_WEB_SERVICE_PORT_HTTP", "80"),
            ("MY_WEB_PORT", "tcp://10.96.0.7:80"),
            ("MY_WEB_PORT_80_TCP", "tcp://10.96.0.7:80"),
            ("MY_WEB_PORT_80_TCP_PROTO", "tcp"),
            ("MY_WEB_PORT_80_TCP_PORT", "80"),
            ("MY_WEB_PORT_80_TCP_ADDR", "10.96.0.7"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.7"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!variables.contains_key("DB_SERVICE_HOST"));
    }

    #[test]
    fn a_pod_that_wants_no_links_still_learns_where_the_api_is() {
        let variables = variables(Some(false));
        assert!(variables.contains_key("KUBERNETES_SERVICE_HOST"));
        assert!(!variables.contains_key("MY_WEB_SERVICE_HOST"));
    }
}
