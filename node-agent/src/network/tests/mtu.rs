//! How large pods' packets are.

use super::*;
use crate::network::pod_link;

/// What `ip` says of links.
fn ip_link(machine: &TestMachine, arguments: &'static str) -> String {
    machine.inside(move || {
        let ran = std::process::Command::new("ip").arg("link").args(arguments.split(' ')).output().unwrap();
        assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    })
}

#[test]
fn pods_that_run_get_the_mtu_that_the_uplink_got() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let (network, world) = start_following(&node, config(dir.path()));
    let pod = TestMachine::new();
    let address = attach(&node, &network, "a", &pod);
    let name = pod_link::host_end("a");
    let have = |mtu: u32| {
        let (inside, here) = (ip_link(&pod, "show dev eth0"), ip_link(&node, "show"));
        let of_node = here.lines().find(|line| line.contains(&name)).unwrap_or_default();
        [inside.as_str(), of_node].iter().all(|link| link.contains(&format!(" mtu {mtu} ")))
    };
    assert!(have(1500));
    ip_link(&node, "set uplink mtu 1400");
    wait_until("the pod to have the smaller MTU", || have(1400));
    ip_link(&node, "set uplink mtu 1500");
    wait_until("the pod to have the larger MTU", || have(1500));

    // A node on another subnet comes, and packets to its pods have the tunnel's headers around them.
    world.send_replace(Arc::new(super::world(&[0, 2])));
    wait_until("the pod to have the tunnel's MTU", || have(1450));
    pod.serve_who_am_i(80);
    assert_eq!(node.ask_who_am_i(address, 80).unwrap(), NODE.to_string());

    // An agent that does not know the other nodes yet leaves that; one that comes after a change sees to it.
    for (uplink, mtu) in [("set uplink mtu 1500", 1450), ("set uplink mtu 1300", 1250)] {
        shutdown(&node, &network, Teardown::Keep);
        ip_link(&node, uplink);
        let network = start_on(&node, config(dir.path()));
        assert_eq!(attach(&node, &network, "a", &pod), address);
        assert!(have(mtu), "{mtu}");
    }
}
