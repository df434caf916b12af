//! Pods beside the host's firewall: Docker's, and one that is not Docker's.

use std::collections::BTreeMap;

use super::{sources::assert_only_own_source_passes, *};
use crate::network::nft::RuleCount;

#[test]
fn a_firewall_that_drops_what_is_forwarded_does_not_part_pods() {
    if !can_make_namespaces() {
        return;
    }
    let cluster = Cluster::start();
    let pods = [cluster.pod(0, "a"), cluster.pod(0, "b"), cluster.pod(1, "c"), cluster.pod(2, "d")];
    let bypassed = |node: &TestMachine| node.wait(async { super::super::nft::is_there("netdev").await.unwrap() });
    assert!(!cluster.nodes.iter().any(bypassed), "nobody drops yet");
    for node in &cluster.nodes {
        nft(node, "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }");
    }
    wait_until("the firewalls to be seen", || cluster.nodes.iter().all(bypassed));
    let late = cluster.pod(0, "e");
    for (client, client_address) in pods.iter().chain([&late]) {
        for (_, server_address) in pods.iter().chain([&late]) {
            let seen = client.ask_who_am_i(*server_address, 80);
            assert_eq!(seen.ok(), Some(client_address.to_string()), "{client_address} to {server_address}");
        }
    }
    assert_eq!(cluster.nodes[1].ask_who_am_i(late.1, 80).unwrap(), NODES[1].to_string(), "node to pod of another");
    assert_only_own_source_passes((&pods[0].0, pods[0].1), (&pods[1].0, pods[1].1));
    for node in &cluster.nodes {
        nft(node, "delete table ip filter");
    }
    wait_until("the bypass to go", || !cluster.nodes.iter().any(bypassed));
    assert_eq!(pods[0].0.ask_who_am_i(late.1, 80).unwrap(), pods[0].1.to_string());
}

#[test]
fn the_bypass_that_an_earlier_agent_left_goes_where_nothing_drops() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    nft(&node, "table netdev fairlead { chain forward { }; }");
    let network = start_on(&node, config(dir.path()));
    assert!(!node.wait(async { super::super::nft::is_there("netdev").await.unwrap() }));
    assert_eq!(network.problem(), None);
}

#[test]
fn a_bypass_that_somebody_removed_comes_back() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    nft(&node, "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }");
    let (_network, _world) = start_following(&node, config(dir.path()));
    let bypassed = || node.wait(async { super::super::nft::is_there("netdev").await.unwrap() });
    assert!(bypassed());
    nft(&node, "delete table netdev fairlead");
    wait_until("the bypass to be back", bypassed);
}

fn counted(rules: &BTreeMap<String, RuleCount>) -> Vec<(&str, usize)> {
    rules.iter().map(|(chain, count)| (chain.as_str(), count.all)).collect()
}

#[test]
fn rules_that_somebody_flushed_from_the_masquerade_come_back() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, outside) = node();
    outside.serve_who_am_i(80);
    let (network, _world) = start_following(&node, config(dir.path()));
    let pod = TestMachine::new();
    attach(&node, &network, "a", &pod);
    let rules = || node.wait(async { super::super::nft::rules("ip").await.unwrap() });
    let all = rules();
    assert_eq!(counted(&all), [("output", 1), ("postrouting", 7)], "as they were written");
    for flush in ["flush table ip fairlead", "flush chain ip fairlead postrouting", "flush chain ip fairlead output"] {
        nft(&node, flush);
        wait_until("the rules to be back", || rules() == all);
    }
    assert_eq!(pod.ask_who_am_i(OUTSIDE, 80).unwrap(), NODE.to_string());
}

#[test]
fn rules_that_somebody_flushed_from_the_bypass_come_back() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    nft(&node, "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }");
    let (network, _world) = start_following(&node, config(dir.path()));
    let (a, b) = (TestMachine::new(), TestMachine::new());
    let address = attach(&node, &network, "a", &a);
    attach(&node, &network, "b", &b);
    a.serve_who_am_i(80);
    let rules = || node.wait(async { super::super::nft::rules("netdev").await.unwrap() });
    let all = rules();
    assert_eq!(counted(&all), [("forward", 1), ("nodes", 1), ("pods", 3)], "as they were written");
    nft(&node, "flush chain netdev fairlead forward");
    wait_until("the rule to be back", || rules() == all);
    assert!(b.ask_who_am_i(address, 80).is_ok());
}

#[test]
fn the_older_firewall_is_looked_at_again() {
    if !can_make_namespaces() {
        return;
    }
    if std::process::Command::new("iptables-legacy").arg("--version").output().is_err() {
        return crate::skipped::skipped("there is no iptables-legacy");
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let network = start_on(&node, config(dir.path()));
    // No event tells of this firewall. Events of our own tables would have it looked at all the same.
    let mut reconciler = reconciler_without_events(&node, &network);
    let legacy = |arguments: &'static str| {
        node.inside(move || {
            let ran = std::process::Command::new("iptables-legacy").args(arguments.split(' ')).output().unwrap();
            assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
        });
    };
    let bypassed = || node.wait(async { super::super::nft::is_there("netdev").await.unwrap() });
    for (policy, drops) in
        [("-w -P FORWARD ACCEPT", false), ("-w -P FORWARD DROP", true), ("-w -P FORWARD ACCEPT", false)]
    {
        legacy(policy);
        reconciler = sync(&node, reconciler, World::default());
        assert_eq!(bypassed(), drops, "{policy}");
    }
}

#[test]
fn links_that_are_made_anew_are_those_that_packets_go_to() {
    if !can_make_namespaces() {
        return;
    }
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        nft(node, "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }");
    }
    let bypassed = |node: &TestMachine| node.wait(async { super::super::nft::is_there("netdev").await.unwrap() });
    wait_until("the firewalls to be seen", || cluster.nodes.iter().all(bypassed));
    let one = &cluster.nodes[0];
    let (a, b, far) = (cluster.pod(0, "a"), cluster.pod(0, "b"), cluster.pod(2, "c"));
    assert_eq!(a.0.ask_who_am_i(far.1, 80).unwrap(), a.1.to_string());
    one.wait(async {
        let netlink = Netlink::open().unwrap();
        let tunnel = netlink.link("fairlead.vx").await.unwrap().unwrap();
        netlink.delete_link(tunnel.index).await.unwrap();
    });
    wait_until("the tunnel to be used again", || a.0.ask_who_am_i(far.1, 80).is_ok());

    // An attempt that made the pod's link anew and failed after that.
    let (again, attacher) = (TestMachine::new(), cluster.networks[0].attacher.clone());
    let path = again.path();
    one.wait(async move { attacher.attach("b", &path).await.map(drop).unwrap() });
    assert_eq!(attach(one, &cluster.networks[0], "b", &again), b.1);
    again.serve_who_am_i(80);
    assert_eq!(a.0.ask_who_am_i(b.1, 80).unwrap(), a.1.to_string());
}

#[test]
fn a_tunnel_that_the_kernel_does_not_make_keeps_no_pod_from_its_start() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    nft(&node, "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }");
    node.inside(|| {
        // Another program's, by the same number and port: the kernel refuses a second.
        let add = ["link", "add", "other", "type", "vxlan", "id", "16391853", "dstport", "4789"];
        assert!(std::process::Command::new("ip").args(add).status().unwrap().success());
    });
    let (_publish, seen) = watch::channel(Arc::new(world(&[0, 2])));
    let config = config(dir.path());
    let network = Arc::new(node.wait(async move { start(config, seen).await.unwrap() }));
    let (a, b) = (TestMachine::new(), TestMachine::new());
    let address = attach(&node, &network, "a", &a);
    attach(&node, &network, "b", &b);
    a.serve_who_am_i(80);
    assert!(b.ask_who_am_i(address, 80).is_ok());
    assert!(!node.inventory().contains("fairlead.vx"));
    assert_eq!(network.problem(), None, "nothing is wrong with this node");
    assert!(network.warning().is_some_and(|warning| warning.contains("make tunnel")), "{:?}", network.warning());
}

/// What Docker writes at its start, after rules of the host's administrator.
fn docker_firewall(machine: &TestMachine) {
    iptables(machine, "-w -P FORWARD DROP");
    iptables(machine, "-w -N DOCKER-USER");
    iptables(machine, "-w -A DOCKER-USER -s 198.51.100.0/24 -j DROP");
    iptables(machine, "-w -A DOCKER-USER -j RETURN");
    iptables(machine, "-w -I FORWARD -j DOCKER-USER");
}

/// What `iptables` of this firewall says; its whole filter table for `-S`.
fn iptables(machine: &TestMachine, arguments: &'static str) -> String {
    machine.inside(move || {
        let ran = std::process::Command::new("iptables-nft").args(arguments.split(' ')).output().unwrap();
        assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    })
}

#[test]
fn pods_reach_the_outside_past_dockers_firewall_and_removal_leaves_its_rules_as_they_were() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, outside) = node();
    outside.serve_who_am_i(80);
    docker_firewall(&node);
    let before = iptables(&node, "-w -S");
    let (_world, seen) = watch::channel(Arc::new(World::default()));
    let config = config(dir.path());
    let network = Arc::new(node.wait(async move { start(config, seen).await.unwrap() }));
    let pod = TestMachine::new();
    attach(&node, &network, "a", &pod);
    assert_eq!(pod.ask_who_am_i(OUTSIDE, 80).unwrap(), NODE.to_string());
    let ours = || iptables(&node, "-w -S DOCKER-USER").lines().filter(|rule| rule.contains("fairlead")).count();
    assert_eq!(ours(), 2);

    iptables(&node, "-w -F DOCKER-USER");
    iptables(&node, "-w -A DOCKER-USER -j RETURN");
    wait_until("our rules to be back", || ours() == 2 && pod.ask_who_am_i(OUTSIDE, 80).is_ok());
    iptables(&node, "-w -I DOCKER-USER -s 198.51.100.0/24 -j DROP");
    shutdown(&node, &network, Teardown::Remove);
    assert_eq!(iptables(&node, "-w -S"), before);
}

#[test]
fn a_firewall_that_becomes_dockers_later_is_found() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    // Docker is half done when the agent looks.
    iptables(&node, "-w -P FORWARD DROP");
    iptables(&node, "-w -N DOCKER-USER");
    let network = start_on(&node, config(dir.path()));
    // Only told to sync: events of our own tables would have it look again, too.
    shutdown(&node, &network, Teardown::Keep);
    let mut reconciler = crate::network::reconciler::NetworkReconciler {
        config: network.config.clone(),
        netlink: network.netlink.clone(),
        attacher: network.attacher.clone(),
        bypass: network.bypass.clone(),
        source_filter: network.source_filter.clone(),
        sysctls: network.sysctls.clone(),
        problem: watch::channel(None).0,
        resync: network.resync.clone(),
        cache: Default::default(),
    };
    let ours = || iptables(&node, "-w -S DOCKER-USER").lines().filter(|rule| rule.contains("fairlead")).count();
    for (rule, expected) in [("-w -A DOCKER-USER -j RETURN", 0), ("-w -I FORWARD -j DOCKER-USER", 2)] {
        iptables(&node, rule);
        reconciler = node.wait(async move {
            let outcome = reconciler.sync(&World::default()).await;
            assert_eq!(outcome.errors().count(), 0, "{outcome:?}");
            reconciler
        });
        assert_eq!(ours(), expected, "{rule}");
    }
}

#[test]
fn a_firewall_that_is_not_dockers_is_left_alone() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, outside) = node();
    outside.serve_who_am_i(80);
    iptables(&node, "-w -P FORWARD DROP");
    let before = iptables(&node, "-w -S");
    let network = start_on(&node, config(dir.path()));
    let pod = TestMachine::new();
    attach(&node, &network, "a", &pod);
    assert_eq!(iptables(&node, "-w -S"), before);
    assert!(pod.ask_who_am_i(OUTSIDE, 80).is_err());
    shutdown(&node, &network, Teardown::Remove);
    assert_eq!(iptables(&node, "-w -S"), before);
}
