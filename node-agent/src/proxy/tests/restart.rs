//! The agent as a process of its own: killed under load, and started again.

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::node::{BACKEND_PORT, Node, endpoint, put_service, service, wait_until};
use crate::{
    proxy::{self, ProxyConfig},
    world::{HostPorts, World},
};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 70);
const IS_AGENT: &str = "FAIRLEAD_TEST_AGENT";
const SERVING: &str = "=> serving";

#[test]
fn killing_the_agent_under_load_fails_no_connection_and_the_next_one_adopts() {
    let Some(mut node) = Node::new() else { return };
    let backends = node.backends::<2>();
    let client_pod = node.pod();
    let mut client = node.client(&client_pod.namespace);
    let mut agent = Agent::start(&node, &backends.each_ref().map(|pod| pod.address));
    assert!(client.ask(&format!("hold old tcp {SERVICE}:80")).starts_with("ok "));

    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut flooding = node.client(&client_pod.namespace);
    let flood = std::thread::spawn({
        let (stop, rounds) = (stop.clone(), rounds.clone());
        move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                rounds.fetch_add(1, Ordering::Relaxed);
                failures.extend(Some(flooding.ask(&format!("flood {SERVICE}:80"))).filter(|answer| answer != "ok all"));
            }
            failures
        }
    });
    let mut kills = 0;
    // As often as there is load to see it: a slow machine needs more time for a round.
    while kills < 5 || rounds.load(Ordering::Relaxed) <= 5 {
        assert!(kills < 200, "the load does not run");
        kills += 1;
        drop(agent);
        assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "), "served without an agent");
        agent = Agent::start(&node, &backends.each_ref().map(|pod| pod.address));
        assert!(client.ask("again old").starts_with("ok "));
    }
    stop.store(true, Ordering::Relaxed);
    let failures = flood.join().unwrap();
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn datagrams_to_nobody_stay_on_the_node_after_its_agent_was_killed() {
    let Some(mut node) = Node::new() else { return };
    let (mut in_pod, pod_address) = node.client_pod();
    let host = node.host.clone();
    let mut on_host = node.client(&host);
    let nobody = format!("udp-connected {SERVICE}:80");
    let agent = Agent::start(&node, &[]);
    assert_eq!(in_pod.ask(&nobody), "error ConnectionRefused");
    drop(agent);
    // The namespace that refuses goes with the process, a moment after its end.
    wait_until("the node itself answers", || in_pod.ask(&nobody) == "error HostUnreachable");
    assert_eq!(on_host.ask(&nobody), "error PermissionDenied");
    let source = in_pod.ask(&format!("source {SERVICE}:80"));
    assert_eq!(source, format!("ok {pod_address} peer {SERVICE}:80"), "the programs and their settings stay");
    let _agent = Agent::start(&node, &[]);
    for client in [&mut in_pod, &mut on_host] {
        assert_eq!(client.ask(&nobody), "error ConnectionRefused");
    }
}

/// Ends by SIGKILL.
struct Agent(Child);

impl Agent {
    fn start(node: &Node, backends: &[Ipv4Addr]) -> Self {
        let ProxyConfig { cgroup, bpf_pins, .. } = node.config();
        let backends: Vec<String> = backends.iter().map(Ipv4Addr::to_string).collect();
        let mut process = node
            .host
            .command(std::env::current_exe().unwrap())
            .args(["proxy::tests::restart::agent_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(IS_AGENT, backends.join(","))
            .env("CGROUP", cgroup.unwrap())
            .env("PINS", bpf_pins)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let serving = output.lines().map_while(Result::ok).any(|line| line.contains(SERVING));
        let agent = Self(process);
        assert!(serving, "the agent ended");
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Not a test: what an [`Agent`] runs.
#[test]
fn agent_process() {
    let Ok(backends) = std::env::var(IS_AGENT) else { return };
    let mut world = World { synced: true, revision: 1, ..World::default() };
    let backends = backends.split(',').filter(|address| !address.is_empty());
    let endpoints = backends.map(|address| endpoint(address.parse().unwrap())).collect();
    put_service(&mut world, service("web", SERVICE, 80), BACKEND_PORT, endpoints);
    let config = ProxyConfig {
        node_name: "here".into(),
        datapath: crate::config::DatapathChoice::Ebpf,
        cgroup: Some(std::env::var("CGROUP").unwrap().into()),
        bpf_pins: std::env::var("PINS").unwrap().into(),
        cluster_dns: None,
        uplinks: Vec::new(),
        node_ips: vec![super::node::NODE_IP],
        service_cidr: Some("10.96.0.0/12".parse().unwrap()),
        reserved: Default::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_world, receiver) = tokio::sync::watch::channel(Arc::new(world));
        let (_host_ports, host_ports) = tokio::sync::watch::channel(HostPorts { synced: true, ..HostPorts::default() });
        let proxy = proxy::start(config, receiver, host_ports).await.unwrap();
        proxy.applied().wait_for(|applied| *applied == 1).await.unwrap();
        println!("{SERVING}");
        std::future::pending::<()>().await;
    });
}
