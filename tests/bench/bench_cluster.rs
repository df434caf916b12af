//! A cluster of two nodes for the datapath benches: a client pod on the first, two server pods on the second.

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        host::Host,
        images,
        process::Process,
        run, wait,
    },
    load::Connects,
};

pub struct BenchCluster {
    pub client: PodNamespace,
    servers: Vec<Process>,
    pub cluster: Cluster,
    /// The server pods themselves: who compares asks them in turn, as the Service does.
    pub direct: Vec<SocketAddrV4>,
    /// ClusterIP of the servers.
    pub service: SocketAddrV4,
    filled: usize,
}

const PORT: u16 = 9000;

impl BenchCluster {
    pub fn start(datapath: &str) -> Result<Self> {
        let places = [NodePlacement { link: 1, number: 11 }, NodePlacement { link: 1, number: 12 }];
        let cluster = Cluster::start_with("flbench", &places, &[], &["--datapath", datapath])?;
        let pod = |name: &str, node: usize, app: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}}}}}\n\
                 spec:\n  nodeName: node-{node}\n\
                 \x20 terminationGracePeriodSeconds: 0\n  containers: [{{name: c, image: \"{}\", command: [sleep, \
                 \"1000000\"]}}]\n---\n",
                images::WEB
            )
        };
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: bench}}\n\
             spec: {{selector: {{app: server}}, ports: [{{port: 80, targetPort: {PORT}}}]}}\n"
        );
        cluster.apply(&format!(
            "{}{}{}{service}",
            pod("client", 1, "client"),
            pod("server-1", 2, "server"),
            pod("server-2", 2, "server")
        ))?;
        let mut servers = Vec::new();
        for name in ["server-1", "server-2"] {
            cluster.wait_for_condition(&format!("pod/{name}"), "Ready")?;
            let mut command = PodNamespace::of(&cluster, name)?.command(std::env::current_exe()?);
            command.args(["--serve", &PORT.to_string()]);
            servers.push(Process::start(name, command, cluster.dir.path())?);
        }
        cluster.wait_for_condition("pod/client", "Ready")?;
        let address = |pod: &str| -> Result<SocketAddrV4> {
            let address = cluster.get(&["pod", pod])?["status"]["podIP"].as_str().unwrap_or_default().parse()?;
            Ok(SocketAddrV4::new(address, PORT))
        };
        let direct = vec![address("server-1")?, address("server-2")?];
        let cluster_ip =
            cluster.get(&["service", "bench"])?["spec"]["clusterIP"].as_str().unwrap_or_default().parse()?;
        let client = PodNamespace::of(&cluster, "client")?;
        let bench = Self { client, servers, cluster, direct, service: SocketAddrV4::new(cluster_ip, 80), filled: 1 };
        wait::until("both servers behind the Service", PATIENCE, || {
            let seen = bench.client.connects(&[bench.service], Duration::from_millis(200))?;
            if seen.failed == 0 && seen.per_second > 100.0 { Ok(()) } else { Err(format!("{seen:?}").into()) }
        })?;
        Ok(bench)
    }

    /// Makes Services until there are `count`, and waits until both nodes' kernels have them.
    pub fn fill(&mut self, count: usize) -> Result {
        if count > self.filled {
            let mut command = self.cluster.control_host.command(std::env::current_exe()?);
            command.arg("--fill").arg(self.cluster.kubeconfig()).args([self.filled.to_string(), count.to_string()]);
            run(&mut command)?;
            self.filled = count;
        }
        self.wait_until_applied()
    }

    /// Waits until every agent has applied what the API has now.
    pub fn wait_until_applied(&self) -> Result {
        let list = self.cluster.kubectl(&["get", "--raw", "/apis/discovery.k8s.io/v1/endpointslices?limit=1"])?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        let wanted: u64 = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse()?;
        let newest = self.cluster.kubectl(&["get", "--raw", "/apis/discovery.k8s.io/v1/endpointslices"])?;
        let newest: serde_json::Value = serde_json::from_str(&newest)?;
        let newest = newest["items"].as_array().into_iter().flatten();
        let newest = newest.filter_map(|s| s["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok()).max();
        let wanted = newest.unwrap_or(wanted);
        for node in &self.cluster.nodes {
            let path = format!("/api/v1/nodes/{}/proxy/inspect/datapath", node.name);
            wait::until("the kernel to have it all", PATIENCE, || {
                let report: serde_json::Value = serde_json::from_str(&self.cluster.kubectl(&["get", "--raw", &path])?)?;
                let applied = report["appliedRevision"].as_u64().unwrap_or(0);
                if applied >= wanted { Ok(()) } else { Err(format!("{applied} of {wanted}").into()) }
            })?;
        }
        Ok(())
    }

    /// Server processes that must still run for figures to mean anything.
    pub fn check(&mut self) -> Result {
        match self.servers.iter_mut().find_map(|server| (!server.is_running()).then(|| server.tail())) {
            Some(tail) => Err(format!("a server ended: {tail}").into()),
            None => Ok(()),
        }
    }
}

/// The network namespace and cgroup of a pod's container.
pub struct PodNamespace {
    netns: PathBuf,
    cgroup: PathBuf,
}

impl PodNamespace {
    pub fn of(cluster: &Cluster, pod: &str) -> Result<Self> {
        let object = cluster.get(&["pod", pod])?;
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
        let node = cluster.nodes.iter().find(|n| n.name == node).ok_or("the pod is on no node")?;
        let id = object["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let pid = node.docker.cli(&["inspect", "--format", "{{.State.Pid}}", id.trim_start_matches("docker://")])?;
        Self::of_process(pid.trim())
    }

    /// What runs on `host` itself.
    pub fn of_host(host: &Host) -> Self {
        Self { netns: host.netns.clone(), cgroup: host.cgroup.clone() }
    }

    fn of_process(pid: &str) -> Result<Self> {
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let unified = cgroups.lines().find_map(|line| line.strip_prefix("0::")).ok_or("no cgroup2")?;
        let root = crate::kit::host::cgroup2_root().ok_or("no cgroup2")?;
        Ok(Self {
            netns: Path::new("/proc").join(pid).join("ns/net"),
            cgroup: root.join(unified.trim_start_matches('/')),
        })
    }

    /// A command that will run in the pod's network namespace and cgroup, with the bench's own file system.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        crate::kit::host::command_in(program, &self.netns, &self.cgroup)
    }

    /// Runs the load generator against `targets` in turn.
    pub fn connects(&self, targets: &[SocketAddrV4], duration: Duration) -> Result<Connects> {
        let mut command = self.command(std::env::current_exe()?);
        command.arg("--connect").arg(duration.as_millis().to_string());
        command.args(targets.iter().map(SocketAddrV4::to_string));
        Ok(serde_json::from_str(&run(&mut command)?)?)
    }
}
