//! kube-proxy in nftables mode as a contestant: on a host of its own in the lab, following fairlead's API, with a pod
//! of its own behind it.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use serde_json::json;

use crate::{
    bench_cluster::{BenchCluster, PodNamespace},
    kit::{Result, cluster::with_input, host::Host, lab::Lab, process::Process, run, wait},
    nft_events::Watcher,
};

/// A running kube-proxy; ends with the value.
pub struct KubeProxy {
    process: Process,
    watcher: Watcher,
    /// Where its pod is: connects from here pass its rules.
    pub client: PodNamespace,
    _pod: Host,
    _host: Host,
    turn: u16,
}

/// As far as it is taken: at more it only takes longer.
pub const MOST_SERVICES: usize = 10_000;

/// How long one change may take: 5 s at 10,000 Services, and its load of them 20 s.
const PATIENCE: Duration = Duration::from_secs(180);

const NODE: &str = "kube-proxy";
const LINK: u8 = 1;
const NUMBER: u8 = 31;
/// Of the control host, see the kit.
const CONTROL_NUMBER: u8 = 1;

impl KubeProxy {
    /// `None`, with the reason, where it was not built.
    pub fn start(peers: &Path, bench: &mut BenchCluster) -> Result<std::result::Result<Self, String>> {
        let program = peers.join("kube-proxy");
        if !program.is_file() {
            return Ok(Err(format!("no kube-proxy column: no kube-proxy in {}", peers.display())));
        }
        let address = Lab::address(LINK, NUMBER);
        let host = bench.cluster.lab.host(NODE, LINK, NUMBER)?;
        let pod_cidr = register(bench, address)?;
        let pod = pod_behind(&host, &bench.cluster.lab.name, pod_cidr)?;
        // As a network plugin would: the server pods' node, which finds the way back by the Node object.
        for node in &bench.cluster.nodes {
            let cidr = text(&bench.cluster.get(&["node", &node.name])?["spec"]["podCIDR"])?;
            host.ip(&format!("route replace {cidr} via {}", node.address))?;
        }
        let mut command = host.command(&program);
        // The administrator's names the server by an address of its own host.
        let server = format!("https://{}:6443", Lab::address(LINK, CONTROL_NUMBER));
        let kubeconfig = bench.cluster.dir.path().join("kube-proxy.kubeconfig");
        let text = std::fs::read_to_string(bench.cluster.kubeconfig())?;
        std::fs::write(&kubeconfig, text.replace("https://127.0.0.1:6443", &server))?;
        command.arg("--kubeconfig").arg(&kubeconfig).args(["--proxy-mode=nftables"]);
        command.args(["--hostname-override", NODE, "--conntrack-max-per-core=0"]);
        let watcher = Watcher::start(&host)?;
        let process = Process::start(NODE, command, bench.cluster.dir.path())?;
        let client = PodNamespace::of_host(&pod);
        let mut started = Self { process, watcher, client, _pod: pod, _host: host, turn: 0 };
        wait::until("kube-proxy to lead its pod to the servers", PATIENCE, || {
            if let Err(ended) = started.check() {
                return Ok(Err(ended));
            }
            let seen = started.client.connects(&[bench.service], Duration::from_millis(200))?;
            if seen.failed == 0 && seen.per_second > 100.0 { Ok(Ok(())) } else { Err(format!("{seen:?}").into()) }
        })??;
        Ok(Ok(started))
    }

    /// Milliseconds from the PUT of one EndpointSlice, of filler `number`, until its rule is in the kernel.
    pub fn change(&mut self, bench: &BenchCluster, number: usize) -> Result<f64> {
        self.check()?;
        self.turn += 1;
        let [high, low] = self.turn.to_be_bytes();
        let [a, b] = Watcher::NETWORK;
        let address = Ipv4Addr::new(a, b, high, low);
        let mut child = bench.cluster.control_host.command(std::env::current_exe()?);
        child.arg("--change").arg(bench.cluster.kubeconfig()).args([number.to_string(), address.to_string()]);
        let sent_ns: u64 = run(&mut child)?.trim().parse()?;
        let seen_ns = self
            .watcher
            .wait_for(address, PATIENCE)
            .map_err(|error| format!("{error}; kube-proxy said:\n{}", self.process.tail()))?;
        Ok(seen_ns.saturating_sub(sent_ns) as f64 / 1e6)
    }

    fn check(&mut self) -> Result {
        if self.process.is_running() {
            Ok(())
        } else {
            Err(format!("kube-proxy ended:\n{}", self.process.tail()).into())
        }
    }
}

/// Makes its Node, without an agent; the pod subnet it was given.
fn register(bench: &BenchCluster, address: Ipv4Addr) -> Result<String> {
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}});
    let mut create = bench.cluster.kubectl_command("kubectl");
    create.args(["create", "-f", "-"]);
    with_input(create, &node.to_string())?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address.to_string()}]}});
    bench.cluster.kubectl(&[
        "patch",
        "node",
        NODE,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ])?;
    wait::until("a pod subnet for kube-proxy's node", Duration::from_secs(30), || {
        text(&bench.cluster.get(&["node", NODE])?["spec"]["podCIDR"])
    })
}

/// A pod's namespace behind `host`, with the second address of `pod_cidr`.
fn pod_behind(host: &Host, lab: &str, pod_cidr: String) -> Result<Host> {
    let network: ipnetwork::Ipv4Network = pod_cidr.parse()?;
    let address = network.nth(2).ok_or("a pod subnet without room")?;
    let gateway = network.nth(1).ok_or("a pod subnet without room")?;
    let pod = Host::new(lab, "kube-proxy-pod")?;
    host.ip(&format!("link add pod type veth peer name eth0 netns {}", pod.name))?;
    host.ip("link set pod up")?;
    host.ip(&format!("addr add {gateway}/32 dev pod"))?;
    host.ip(&format!("route add {address} dev pod"))?;
    host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    pod.ip(&format!("addr add {address}/32 dev eth0"))?;
    pod.ip("link set eth0 up")?;
    pod.ip(&format!("route add {gateway} dev eth0"))?;
    pod.ip(&format!("route add default via {gateway}"))?;
    Ok(pod)
}

fn text(value: &serde_json::Value) -> Result<String> {
    Ok(value.as_str().ok_or("not there yet")?.to_owned())
}
