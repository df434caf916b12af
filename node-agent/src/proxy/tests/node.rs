//! One node: a namespace as its host, a cgroup for its processes, pods behind veths, echo servers in the pods.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::watch;

use super::{client::Client, namespace::Namespace};
use crate::{
    Teardown,
    config::DatapathChoice,
    proxy::{self, Proxy, ProxyConfig, load},
    world::*,
};

/// Address of the node under test, on its loopback.
pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The port on which the pods of these tests serve.
pub const BACKEND_PORT: u16 = 8080;

/// A node under test: namespace, cgroup, pins and a running datapath, all gone with the value.
pub struct Node {
    /// The host's network namespace.
    pub host: Namespace,
    cgroup: PathBuf,
    pins: PathBuf,
    /// What the datapath is told of the cluster.
    pub world: watch::Sender<Arc<World>>,
    /// What the datapath is told of this node's pods.
    pub host_ports: watch::Sender<HostPorts>,
    runtime: tokio::runtime::Runtime,
    proxy: Option<Proxy>,
    pods: u8,
    /// Which datapath the next start uses.
    pub datapath: DatapathChoice,
    /// Names of the links that lead to neighbours.
    pub uplinks: Vec<String>,
    /// The cluster DNS address, and the server that answers it.
    pub dns: Option<(Ipv4Addr, SocketAddrV4)>,
    /// Another than that of the clients.
    pub cgroup_for_hooks: Option<PathBuf>,
}

impl Node {
    /// `None`, saying why, where the kernel cannot be used.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            crate::skipped::skipped("namespaces, cgroups and BPF need root");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fairlead-dp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let cgroup = load::cgroup2_root().unwrap().join(&name);
        std::fs::create_dir(&cgroup).unwrap();
        let host = Namespace::new();
        host.ip(&format!("addr add {NODE_IP}/32 dev lo"));
        host.run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            // The tests see many refusals in a second, the kernel tells one of them.
            std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
        });
        // Its threads are in the node's namespace, as all of an agent's are.
        let runtime =
            host.run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
        Some(Self {
            host,
            pins: std::env::temp_dir().join(&name),
            cgroup,
            world: watch::Sender::new(Arc::new(World::default())),
            host_ports: watch::Sender::new(HostPorts { synced: true, ..HostPorts::default() }),
            runtime,
            proxy: None,
            pods: 0,
            datapath: DatapathChoice::Ebpf,
            uplinks: Vec::new(),
            dns: None,
            cgroup_for_hooks: None,
        })
    }

    /// The configuration of the next start.
    pub fn config(&self) -> ProxyConfig {
        ProxyConfig {
            node_name: "here".into(),
            datapath: self.datapath,
            cgroup: Some(self.cgroup_for_hooks.clone().unwrap_or_else(|| self.cgroup.clone())),
            bpf_pins: self.pins.clone(),
            cluster_dns: self.dns,
            uplinks: self.uplinks.clone(),
            node_ips: vec![NODE_IP],
            service_cidr: Some("10.96.0.0/12".parse().unwrap()),
            reserved: Default::default(),
        }
    }

    /// Starts the datapath in the node's namespace. It is stopped, and removed from the kernel, with the node at the
    /// latest.
    pub fn start(&mut self) {
        let (config, world, host_ports) = (self.config(), self.world.subscribe(), self.host_ports.subscribe());
        let handle = self.runtime.handle().clone();
        self.proxy = Some(self.host.run(move || handle.block_on(proxy::start(config, world, host_ports))).unwrap());
    }

    /// The datapath that was started.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the datapath is started")
    }

    /// Publishes a World made by `change` and waits until it is served.
    pub fn publish(&self, change: impl FnOnce(&mut World)) {
        let mut revision = 0;
        self.world.send_modify(|world| {
            let mut next = World::clone(world);
            next.synced = true;
            next.revision += 1;
            change(&mut next);
            revision = next.revision;
            *world = Arc::new(next);
        });
        let proxy = self.proxy();
        self.runtime.block_on(async {
            let mut applied = proxy.applied();
            let served = applied.wait_for(|applied| *applied >= revision);
            tokio::time::timeout(std::time::Duration::from_secs(10), served)
                .await
                .unwrap_or_else(|_| panic!("revision {revision} is not served: {:?}", proxy.problems()))
                .unwrap();
        });
    }

    /// Publishes `service` with `endpoints` at [`BACKEND_PORT`], in the place of what it had.
    pub fn serve(&self, service: Service, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.publish(|world| put_service(world, service, BACKEND_PORT, endpoints.into_iter().collect()));
    }

    /// Runs `work` in the node's runtime.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Where a map of the started datapath is pinned.
    pub fn pinned_map(&self, name: &str) -> PathBuf {
        load::layout(&self.pins).join("maps").join(name)
    }

    /// Ends the datapath, and leaves behind what `teardown` says.
    pub fn stop(&mut self, teardown: Teardown) {
        let proxy = self.proxy.take().expect("the datapath is started");
        self.runtime.block_on(proxy.shutdown(teardown)).unwrap();
    }

    /// A pod with an address of its own: 10.244.0.2 and on.
    pub fn pod(&mut self) -> Pod {
        self.pods += 1;
        let address = Ipv4Addr::new(10, 244, 0, self.pods + 1);
        let namespace = Namespace::new();
        let link = format!("fl{}", self.pods);
        self.host.ip(&format!("link add {link} type veth peer name eth0 netns {}", namespace.path()));
        self.host.ip(&format!("link set {link} up"));
        self.host.ip(&format!("route add {address}/32 dev {link} src {NODE_IP}"));
        namespace.ip(&format!("addr add {address}/32 dev eth0"));
        namespace.ip("link set eth0 up");
        namespace.ip(&format!("route add {NODE_IP}/32 dev eth0"));
        namespace.ip(&format!("route add default via {NODE_IP} dev eth0"));
        Pod { address, namespace }
    }

    /// A pod that serves on [`BACKEND_PORT`].
    pub fn backend(&mut self) -> Pod {
        let pod = self.pod();
        serve(&pod.namespace, pod.address, BACKEND_PORT);
        pod
    }

    /// `N` new pods that serve on [`BACKEND_PORT`].
    pub fn backends<const N: usize>(&mut self) -> [Pod; N] {
        std::array::from_fn(|_| self.backend())
    }

    /// A client process in a pod of its own, with the pod's address.
    pub fn client_pod(&mut self) -> (Client, Ipv4Addr) {
        let pod = self.pod();
        (self.client(&pod.namespace), pod.address)
    }

    /// A host outside, behind an uplink of its own; everything it sends goes to this node.
    pub fn neighbour(&mut self, address: Ipv4Addr) -> Namespace {
        let namespace = Namespace::new();
        let link = format!("up{}", self.uplinks.len());
        self.host.ip(&format!("link add {link} type veth peer name eth0 netns {}", namespace.path()));
        self.host.ip(&format!("link set {link} up"));
        self.host.ip(&format!("route add {address}/32 dev {link} src {NODE_IP}"));
        namespace.ip(&format!("addr add {address}/32 dev eth0"));
        namespace.ip("link set eth0 up");
        namespace.ip(&format!("route add {NODE_IP}/32 dev eth0"));
        namespace.ip(&format!("route add default via {NODE_IP} dev eth0"));
        self.uplinks.push(link);
        namespace
    }

    /// A client process outside the node's cgroup, as on another machine.
    pub fn stranger(&self, namespace: &Namespace) -> Client {
        Client::start(namespace, None)
    }

    /// A client process in `namespace` and in the node's cgroup.
    pub fn client(&self, namespace: &Namespace) -> Client {
        Client::start(namespace, Some(&self.cgroup))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let stopped = self.proxy.take().map(|proxy| self.runtime.block_on(proxy.shutdown(Teardown::Remove)));
        if let Err(error) = load::remove(&self.pins, &[]) {
            eprintln!("{error:?}");
        }
        // Clients end when their handles are dropped; their cgroup can go once they are reaped.
        for directory in [&self.cgroup, &self.pins] {
            if directory.exists()
                && let Err(error) = std::fs::remove_dir(directory)
            {
                eprintln!("remove {}: {error}", directory.display());
            }
        }
        if let Some(Err(error)) = stopped {
            assert!(std::thread::panicking(), "{error:?}");
        }
    }
}

/// A pod of the node under test: a namespace with a link to the host's.
pub struct Pod {
    /// Its only address.
    pub address: Ipv4Addr,
    /// Where its processes run.
    pub namespace: Namespace,
}

impl Pod {
    /// The pod as a ready endpoint.
    pub fn endpoint(&self) -> Endpoint {
        endpoint(self.address)
    }
}

/// An echo server in `namespace` that answers `ADDRESS sees PEER`.
pub fn serve(namespace: &Namespace, address: Ipv4Addr, port: u16) {
    let (tcp, udp) =
        namespace.run(move || (TcpListener::bind((address, port)).unwrap(), UdpSocket::bind((address, port)).unwrap()));
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || -> std::io::Result<()> {
                let peer = stream.peer_addr()?;
                let mut buffer = [0; 64];
                while stream.read(&mut buffer)? > 0 {
                    stream.write_all(format!("{address} sees {}\n", peer.ip()).as_bytes())?;
                }
                Ok(())
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            udp.send_to(format!("{address} sees {}\n", peer.ip()).as_bytes(), peer).unwrap();
        }
    });
}

/// A Service `default/NAME` with one port, `http` for TCP and `dns` for UDP.
pub fn service(name: &str, cluster_ip: Ipv4Addr, port: u16) -> Service {
    let ports = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)].map(|(name, protocol)| ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port: None,
    });
    Service {
        revision: 1,
        ..Service::new(ObjectName::new("default", name), ServiceKind::ClusterIp(vec![cluster_ip]), ports.to_vec())
    }
}

/// A NodePort Service: TCP on `node_port`, UDP on the one above.
pub fn node_port_service(name: &str, cluster_ip: Ipv4Addr, node_port: u16) -> Service {
    let mut service = service(name, cluster_ip, 80);
    for (place, port) in (0..).zip(&mut service.ports) {
        port.node_port = Some(node_port + place);
    }
    service
}

/// A ready endpoint on no node.
pub fn endpoint(address: Ipv4Addr) -> Endpoint {
    Endpoint {
        addresses: vec![address],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node_name: Some("here".into()),
        zone: None,
        for_zones: Vec::new(),
        pod: None,
    }
}

/// Adds or replaces a Service and its only slice, whose ports are `target_port`.
pub fn put_service(world: &mut World, service: Service, target_port: u16, endpoints: Vec<Endpoint>) {
    let ports = service
        .ports
        .iter()
        .map(|port| SlicePort { name: port.name.clone(), protocol: port.protocol, port: target_port })
        .collect();
    let slice = EndpointSlice {
        name: "slice".into(),
        service: service.name.clone(),
        ports,
        endpoints,
        triggered_at: None,
        revision: world.revision,
    };
    world.slices.insert(service.name.clone(), imbl::OrdMap::unit("slice".into(), Arc::new(slice)));
    world.services.insert(service.name.clone(), Arc::new(service));
}

/// Which backends answered.
pub fn backends(answers: &[String]) -> Vec<String> {
    tally(answers).into_keys().collect()
}

/// How often each backend answered.
pub fn tally(answers: &[String]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        *tally.entry(answer.split(' ').nth(1).unwrap_or(answer).to_owned()).or_default() += 1;
    }
    tally
}

/// Tries until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "not within ten seconds: {what}");
    }
}
