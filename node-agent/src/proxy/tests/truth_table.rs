//! The truth table: where the client is × what it connects to × policies × endpoint states × protocol, on both
//! datapaths.
//!
//! What is expected is written here once more, by the rules and not by the code, so that neither datapath is its own
//! judge.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{
    client::Client,
    node::{NODE_IP, node_port_service},
    two_nodes::{EXTERNAL, OTHER_POD, TwoNodes, there},
};
use crate::{
    config::DatapathChoice,
    proxy::Datapath,
    world::{Endpoint, ExternalTrafficPolicy, InternalTrafficPolicy, Node, Service},
};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 60);
const NODE_PORT: u16 = 30060;

#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    Pod,
    Host,
    Outside,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    ClusterIp,
    NodePort,
    ExternalIp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ready,
    NotReady,
    /// Terminating, still serving.
    Draining,
    Absent,
}

#[derive(Debug, PartialEq)]
enum Expected {
    Backends(BTreeSet<Ipv4Addr>),
    Refused,
    /// By the packet hooks; userspace can only refuse.
    Dropped,
}

#[test]
fn ebpf_answers_as_the_rules_say() {
    run(DatapathChoice::Ebpf);
}

#[test]
fn userspace_answers_as_the_rules_say() {
    run(DatapathChoice::Userspace);
}

fn run(choice: DatapathChoice) {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.datapath = choice;
    let (in_pod, _) = nodes.node.client_pod();
    nodes.node.start();
    let is_ebpf = nodes.node.proxy().datapath() == Datapath::Ebpf;
    assert_eq!(is_ebpf, choice == DatapathChoice::Ebpf);
    let host = nodes.node.host.clone();
    let mut clients = [
        (From::Pod, in_pod),
        (From::Host, nodes.node.client(&host)),
        (From::Outside, nodes.node.stranger(&nodes.outside)),
    ];
    nodes.node.publish(|world| {
        let this = Node {
            name: "here".into(),
            internal_ip: Some(NODE_IP),
            pod_cidr: Some("10.244.0.0/24".parse().unwrap()),
            revision: 1,
            ..Node::default()
        };
        world.nodes.insert("here".into(), this.into());
    });
    for internal in [InternalTrafficPolicy::Cluster, InternalTrafficPolicy::Local] {
        for external in [ExternalTrafficPolicy::Cluster, ExternalTrafficPolicy::Local] {
            for (here, elsewhere) in STATES {
                let service = Service {
                    external_ips: vec![EXTERNAL],
                    internal_traffic_policy: internal,
                    external_traffic_policy: external,
                    ..node_port_service("web", SERVICE, NODE_PORT)
                };
                let endpoints = [in_state(nodes.here(), here), in_state(there(), elsewhere)];
                nodes.node.serve(service, endpoints.into_iter().flatten());
                for (from, client) in &mut clients {
                    for to in [To::ClusterIp, To::NodePort, To::ExternalIp] {
                        let local_only = match (*from, to) {
                            (_, To::ClusterIp) => internal == InternalTrafficPolicy::Local,
                            (From::Outside, _) => external == ExternalTrafficPolicy::Local,
                            _ => false,
                        };
                        let expected = expected(*from, to, local_only, (here, nodes.pod.address), elsewhere);
                        let case =
                            format!("{from:?} to {to:?}, local only {local_only}, here {here:?}, there {elsewhere:?}");
                        check(client, *from, to, &expected, is_ebpf, &case);
                    }
                }
            }
        }
    }
}

/// Here and on the other node.
const STATES: [(State, State); 6] = [
    (State::Ready, State::Ready),
    (State::Draining, State::Ready),
    (State::Draining, State::Draining),
    (State::NotReady, State::Ready),
    (State::Absent, State::Ready),
    (State::NotReady, State::Absent),
];

fn in_state(endpoint: Endpoint, state: State) -> Option<Endpoint> {
    match state {
        State::Ready => Some(endpoint),
        State::NotReady => Some(Endpoint { ready: false, serving: false, ..endpoint }),
        State::Draining => Some(Endpoint { ready: false, terminating: true, ..endpoint }),
        State::Absent => None,
    }
}

fn expected(from: From, to: To, local_only: bool, here: (State, Ipv4Addr), elsewhere: State) -> Expected {
    let candidates = if local_only { vec![here] } else { vec![here, (elsewhere, OTHER_POD)] };
    for state in [State::Ready, State::Draining] {
        let picked: BTreeSet<Ipv4Addr> =
            candidates.iter().filter(|(candidate, _)| *candidate == state).map(|(_, address)| *address).collect();
        if !picked.is_empty() {
            return Expected::Backends(picked);
        }
    }
    let others = local_only && matches!(elsewhere, State::Ready | State::Draining);
    if from == From::Outside && to != To::ClusterIp && others { Expected::Dropped } else { Expected::Refused }
}

fn check(client: &mut Client, from: From, to: To, expected: &Expected, is_ebpf: bool, case: &str) {
    let (tcp, udp) = match to {
        To::ClusterIp => (format!("{SERVICE}:80"), format!("{SERVICE}:80")),
        To::ExternalIp => (format!("{EXTERNAL}:80"), format!("{EXTERNAL}:80")),
        To::NodePort => (format!("{NODE_IP}:{NODE_PORT}"), format!("{NODE_IP}:{}", NODE_PORT + 1)),
    };
    match expected {
        Expected::Backends(backends) => {
            for command in [format!("tcp {tcp}"), format!("udp {udp}"), format!("udp-connected {udp}")] {
                reaches(client, &command, backends, case);
            }
        }
        // A listener that clients inside need takes the connection of one outside before it can refuse it.
        Expected::Refused | Expected::Dropped if !is_ebpf && from == From::Outside => {
            let answer = client.ask(&format!("tcp {tcp}"));
            assert!(["error ConnectionRefused", "error ConnectionReset"].contains(&&*answer), "{answer}: {case}");
        }
        Expected::Refused => {
            assert_eq!(client.ask(&format!("tcp {tcp}")), "error ConnectionRefused", "{case}");
            assert_eq!(client.ask(&format!("udp-connected {udp}")), "error ConnectionRefused", "{case}");
        }
        Expected::Dropped => assert_eq!(client.ask(&format!("tcp {tcp}")), "error TimedOut", "{case}"),
    }
}

/// Every backend answers in time, and no other.
fn reaches(client: &mut Client, command: &str, backends: &BTreeSet<Ipv4Addr>, case: &str) {
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let answer = client.ask(command);
        let backend = answer.strip_prefix("ok ").and_then(|answer| answer.split(' ').next()?.parse::<Ipv4Addr>().ok());
        let backend = backend.unwrap_or_else(|| panic!("{command}: {answer}: {case}"));
        assert!(backends.contains(&backend), "{command}: {backend} must not be picked: {case}");
        seen.insert(backend);
        if seen.len() == backends.len() {
            return;
        }
    }
    panic!("{command}: only {seen:?} of {backends:?} are picked: {case}");
}
