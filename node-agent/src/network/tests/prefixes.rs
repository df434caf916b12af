//! Nodes that see each other in different ways.

use super::*;

#[test]
fn nodes_whose_prefixes_differ_reach_each_others_pods() {
    if !can_make_namespaces() {
        return;
    }
    // The first sees the second on its link, and not the other way round.
    let hosts = [(Ipv4Addr::new(192, 168, 0, 1), 16), (Ipv4Addr::new(192, 168, 7, 9), 24)];
    let router_ip = Ipv4Addr::new(192, 168, 7, 254);
    let (router, nodes) = (TestMachine::new(), hosts.map(|_| TestMachine::new()));
    router.become_switch(router_ip, 16);
    for ((port, node), (address, prefix)) in ["port1", "port2"].into_iter().zip(&nodes).zip(hosts) {
        router.plug(port, node, address, prefix);
        node.default_route(router_ip);
    }
    let of = |index: usize| Node {
        name: NAMES[index].into(),
        internal_ip: Some(hosts[index].0),
        pod_cidr: Some(pod_cidr(index)),
        ..Node::default()
    };
    let all = [of(0), of(1)].map(|node| (node.name.clone(), Arc::new(node)));
    let world = World { nodes: all.into_iter().collect(), synced: true, revision: 1, ..World::default() };
    let (_publish, seen) = watch::channel(Arc::new(world));
    let mut pods = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let (dir, seen, pod) = (tempfile::tempdir().unwrap(), seen.clone(), TestMachine::new());
        let (node_name, node_ip) = (NAMES[index].into(), hosts[index].0);
        let config = NetworkConfig { node_name, node_ip, pod_cidr: pod_cidr(index), ..config(dir.path()) };
        let network = Arc::new(node.wait(async move { start(config, seen).await.unwrap() }));
        let address = attach(node, &network, "a", &pod);
        pod.serve_who_am_i(80);
        pods.push((pod, address, network, dir));
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let seen = pods[from].0.ask_who_am_i(pods[to].1, 80).unwrap();
        assert_eq!(seen, pods[from].1.to_string(), "pod of node {from} to pod of node {to}");
    }
}
