//! The agent's datapath alone, from a World to the kernel's maps: a cold start with many Services, and one change among
//! them.
//!
//! A child runs it in a lab host's namespace and cgroup. The clock starts when the snapshot is handed over and stops
//! when the datapath says that the kernel serves it: what comes before is the API's and the watch's.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Instant};

use fairlead_node_agent::{
    Teardown,
    config::DatapathChoice,
    proxy,
    world::{
        Endpoint, EndpointSlice, HostPorts, ObjectName, Protocol, Service, ServiceKind, ServicePort, SlicePort, World,
    },
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::kit::{Result, host::Host, run};

/// What one run saw.
#[derive(Debug, Serialize, Deserialize)]
pub struct MapWriteTimes {
    pub cold_start_s: f64,
    /// Of each change, the kernel's maps written.
    pub changes_ms: Vec<f64>,
}

const CHANGES: usize = 1000;

/// Runs the child on `host`, which has no datapath of its own.
pub fn measure(host: &Host, services: usize) -> Result<MapWriteTimes> {
    let pins = PathBuf::from("/sys/fs/bpf").join(format!("{}-alone", host.name));
    let mut command = host.command(std::env::current_exe()?);
    command.args(["--agent-datapath", &services.to_string()]).arg(&host.cgroup).arg(&pins);
    Ok(serde_json::from_str(&run(&mut command)?)?)
}

/// The child.
pub async fn child(services: usize, cgroup: PathBuf, pins: PathBuf) -> Result<MapWriteTimes> {
    let config = proxy::ProxyConfig {
        node_name: "node".into(),
        datapath: DatapathChoice::Ebpf,
        cgroup: Some(cgroup),
        bpf_pins: pins,
        cluster_dns: None,
        uplinks: Vec::new(),
        node_ips: vec![Ipv4Addr::new(192, 0, 2, 1)],
        service_cidr: None,
        reserved: Default::default(),
    };
    let mut world = World { revision: 1, synced: true, ..World::default() };
    for number in 0..services {
        put(&mut world, number, number * 2 + 1);
    }
    let (publish, receive) = watch::channel(Arc::new(World::default()));
    let (_no_pods, host_ports) = watch::channel(HostPorts { synced: true, ..HostPorts::default() });
    let proxy = proxy::start(config, receive, host_ports).await?;
    let mut applied = proxy.applied();
    let start = Instant::now();
    publish.send_replace(Arc::new(world.clone()));
    applied.wait_for(|revision| *revision >= 1).await?;
    let cold_start_s = start.elapsed().as_secs_f64();
    let mut changes_ms = Vec::with_capacity(CHANGES);
    for turn in 0..CHANGES {
        world.revision += 1;
        put(&mut world, turn * services / CHANGES, services * 2 + turn);
        let revision = world.revision;
        let snapshot = Arc::new(world.clone());
        let start = Instant::now();
        publish.send_replace(snapshot);
        applied.wait_for(|applied| *applied >= revision).await?;
        changes_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    if !proxy.problems().is_empty() {
        return Err(proxy.problems().join("; ").into());
    }
    proxy.shutdown(Teardown::Remove).await?;
    Ok(MapWriteTimes { cold_start_s, changes_ms })
}

/// Service `number` with two endpoints, of which the second is the one numbered `second`.
fn put(world: &mut World, number: usize, second: usize) {
    let name = ObjectName::new("default", format!("service-{number:05}"));
    let [_, a, b, c] = (number as u32).to_be_bytes();
    let service = Service {
        revision: world.revision,
        ..Service::new(
            name.clone(),
            ServiceKind::ClusterIp(vec![Ipv4Addr::new(10, 96 + a, b, c)]),
            vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        )
    };
    let endpoint = |number: usize| {
        let [_, a, b, c] = (number as u32).to_be_bytes();
        Endpoint {
            addresses: vec![Ipv4Addr::new(10, 128 + a, b, c)],
            ready: true,
            serving: true,
            terminating: false,
            hostname: None,
            node_name: None,
            zone: None,
            for_zones: Vec::new(),
            pod: None,
        }
    };
    let slice = EndpointSlice {
        name: "slice".into(),
        service: name.clone(),
        ports: vec![SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: vec![endpoint(number * 2), endpoint(second)],
        triggered_at: None,
        revision: world.revision,
    };
    world.services.insert(name.clone(), Arc::new(service));
    world.slices.entry(name).or_default().insert(slice.name.clone(), Arc::new(slice));
}
