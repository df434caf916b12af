//! Small Worlds for tests: Services of one TCP port 80 with target 8080.

use std::{net::Ipv4Addr, sync::Arc};

use imbl::OrdMap;

use crate::world::*;

/// In the namespace `default`.
pub fn name(service: &str) -> ObjectName {
    ObjectName::new("default", service)
}

/// A ClusterIP Service with the port `http`, TCP 80.
pub fn service(service: &str, cluster_ip: Ipv4Addr) -> Service {
    Service {
        revision: 1,
        ..Service::new(
            name(service),
            ServiceKind::ClusterIp(vec![cluster_ip]),
            vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        )
    }
}

/// 10.244.0.`host`, ready, on `node`.
pub fn endpoint(host: u8, node: &str) -> Endpoint {
    endpoint_at(Ipv4Addr::new(10, 244, 0, host), node)
}

/// As [`endpoint`], with this address.
pub fn endpoint_at(address: Ipv4Addr, node: &str) -> Endpoint {
    Endpoint {
        addresses: vec![address],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node_name: Some(node.into()),
        zone: None,
        for_zones: Vec::new(),
        pod: None,
    }
}

/// Adds or replaces a Service with its only slice.
pub fn put(world: &mut World, service: Service, endpoints: Vec<Endpoint>) {
    let ports = vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }];
    let slice = EndpointSlice {
        name: "slice".into(),
        service: service.name.clone(),
        ports,
        endpoints,
        triggered_at: None,
        revision: 1,
    };
    world.slices.insert(service.name.clone(), OrdMap::unit("slice".into(), Arc::new(slice)));
    world.services.insert(service.name.clone(), Arc::new(service));
}

/// Removes a Service and its slices.
pub fn remove(world: &mut World, service: &str) {
    world.services.remove(&name(service));
    world.slices.remove(&name(service));
}
