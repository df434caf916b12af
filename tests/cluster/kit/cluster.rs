//! A whole cluster: one control service and its nodes, each a host of a lab, driven as a user drives it.

use std::{
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{
    Result, docker::Docker, host::Host, images::Images, lab::Lab, process::Process, run, wait, work_dir::WorkDir,
};

/// The program under test.
pub const FAIRLEAD: &str = env!("CARGO_BIN_EXE_fairlead");

pub struct Cluster {
    // Fields are dropped in this order: agents before engines before hosts.
    pub nodes: Vec<Node>,
    pub control: Option<Process>,
    pub control_host: Host,
    /// A host that belongs to no node: the world outside the cluster.
    pub outside: Host,
    pub lab: Lab,
    pub images: Images,
    pub dir: WorkDir,
    join_token: String,
    server_arguments: Vec<String>,
}

pub struct Node {
    pub name: String,
    pub address: Ipv4Addr,
    pub agent: Option<Process>,
    pub docker: Docker,
    pub host: Host,
    /// Its files; `resolv.conf` is what its pods and its DNS server take for the host's.
    pub dir: PathBuf,
}

/// Where a node is put: its link and host number (see [`Lab`]).
pub struct NodePlacement {
    pub link: u8,
    pub number: u8,
}

/// How long a cluster may take to do what was asked, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

const CONTROL: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);

impl Cluster {
    /// Starts the control service and a node at every place, and waits until all nodes are Ready.
    pub fn start(name: &str, places: &[NodePlacement]) -> Result<Self> {
        Self::start_with(name, places, &[], &[])
    }

    /// The same with more flags for `fairlead server` and for every `fairlead node run`.
    pub fn start_with(name: &str, places: &[NodePlacement], server: &[&str], agent: &[&str]) -> Result<Self> {
        let dir = WorkDir::new(name)?;
        let images = Images::build(dir.path())?;
        let mut lab = Lab::new(name)?;
        let control_host = lab.host("control", 1, 1)?;
        let outside = lab.host("outside", 1, 200)?;
        let mut cluster = Self {
            nodes: Vec::new(),
            control: None,
            control_host,
            outside,
            lab,
            images,
            dir,
            join_token: String::new(),
            server_arguments: server.iter().map(|a| (*a).to_owned()).collect(),
        };
        cluster.start_control()?;
        cluster.join_token = run(cluster.fairlead(&["token", "create"]).stderr(Stdio::inherit()))?.trim().to_owned();
        for (index, place) in places.iter().enumerate() {
            cluster.add_node(&format!("node-{}", index + 1), place, agent)?;
        }
        for node in &cluster.nodes {
            cluster.wait_for_condition(&format!("node/{}", node.name), "Ready")?;
        }
        Ok(cluster)
    }

    /// Starts (or starts again) the control service, and waits until it answers.
    pub fn start_control(&mut self) -> Result {
        let mut command = self.control_host.command(FAIRLEAD);
        command.args(["server", "--data-dir"]).arg(self.control_dir());
        command.args(["--bind", "0.0.0.0:6443", "--advertise", &CONTROL.to_string()]);
        command.args(&self.server_arguments).env("RUST_LOG", "info");
        self.control = Some(Process::start("control", command, self.dir.path())?);
        wait::until("the control service to answer", PATIENCE, || {
            self.kubectl(&["get", "--raw", "/readyz"]).map(|_| ())
        })
        .map_err(|error| format!("{error}\n{}", self.control.as_ref().map(Process::tail).unwrap_or_default()).into())
    }

    fn control_dir(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    fn add_node(&mut self, name: &str, place: &NodePlacement, agent: &[&str]) -> Result {
        let host = self.lab.host(name, place.link, place.number)?;
        let dir = self.dir.path().join(name);
        let docker = Docker::start(&host, &dir.join("docker"))?;
        self.images.import(&docker, super::images::WEB)?;
        let address = Lab::address(place.link, place.number);
        let mut node = Node { name: name.to_owned(), address, agent: None, docker, host, dir };
        node.start_agent(&self.join_token, agent)?;
        self.nodes.push(node);
        Ok(())
    }

    /// Starts the agent of node `index` again, with the flags it is given now.
    pub fn restart_agent(&mut self, index: usize, agent: &[&str]) -> Result {
        let token = self.join_token.clone();
        self.nodes[index].start_agent(&token, agent)
    }

    /// `fairlead ARGUMENTS` as the administrator, on the control host.
    pub fn fairlead(&self, arguments: &[&str]) -> Command {
        let mut command = self.control_host.command(FAIRLEAD);
        command.env("KUBECONFIG", self.kubeconfig()).args(arguments);
        command
    }

    /// `kubectl ARGUMENTS` as the administrator; its output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.kubectl_command("kubectl").args(arguments))
    }

    /// A kubectl of any version, by its program name.
    pub fn kubectl_command(&self, program: &str) -> Command {
        let mut command = self.control_host.command(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path());
        command
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.control_dir().join("admin.kubeconfig")
    }

    /// `fairlead apply -f -` of `manifest`.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        with_input(self.fairlead(&["apply", "-f", "-"]), manifest)
    }

    /// The object as JSON.
    pub fn get(&self, what: &[&str]) -> Result<Value> {
        let arguments: Vec<&str> = ["get", "-o", "json"].into_iter().chain(what.iter().copied()).collect();
        Ok(serde_json::from_str(&run(&mut self.fairlead(&arguments))?)?)
    }

    /// Waits for a condition of `what` (`deployment/web`) to be True.
    pub fn wait_for_condition(&self, what: &str, condition: &str) -> Result {
        wait::until(&format!("{what} to be {condition}"), PATIENCE, || {
            let object = self.get(&[what])?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let holds = conditions.iter().any(|c| c["type"] == condition && c["status"] == "True");
            if holds { Ok(()) } else { Err(format!("conditions: {}", Value::from(conditions)).into()) }
        })
        .map_err(|error| format!("{error}\n{}", self.state()).into())
    }

    /// Waits until every replica of a Deployment is updated and available.
    pub fn wait_for_rollout(&self, deployment: &str) -> Result {
        let mut command = self.fairlead(&["rollout", "status", &format!("deployment/{deployment}"), "--timeout=90s"]);
        run(&mut command).map(|_| ()).map_err(|error| format!("{error}\n{}", self.state()).into())
    }

    /// A route in the wire between the links, for addresses that a test gives to the outside.
    pub fn lab_route(&self, route: &str) -> Result {
        self.lab.route(route)
    }

    /// What a person would look at when something is stuck.
    pub fn state(&self) -> String {
        let show = |arguments: &[&str]| match self.kubectl(arguments) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        };
        let mut text = show(&["get", "nodes,pods,services,endpointslices", "-A", "-o", "wide"]);
        text += &show(&["get", "events", "-A"]);
        for process in self.nodes.iter().filter_map(|node| node.agent.as_ref()).chain(&self.control) {
            text += &format!("--- {}\n{}\n", process.log.display(), process.tail());
        }
        text
    }

    /// Runs a shell line inside a pod's container through the node's engine (kubectl exec is not what is tested).
    pub fn in_pod(&self, pod: &str, line: &str) -> Result<String> {
        let object = self.get(&["pod", pod])?;
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
        let id = object["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let id = id.trim_start_matches("docker://");
        let node = self.nodes.iter().find(|n| n.name == node).ok_or_else(|| format!("pod {pod} is on no node"))?;
        node.docker.cli(&["exec", id, "sh", "-c", line])
    }

    /// Names of the pods that `selector` selects, in order.
    pub fn pods(&self, selector: &str) -> Result<Vec<String>> {
        let list = self.get(&["pods", "-l", selector])?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> =
            items.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }
}

impl Node {
    fn start_agent(&mut self, token: &str, more: &[&str]) -> Result {
        let resolv_conf = self.dir.join("resolv.conf");
        std::fs::write(&resolv_conf, "search example.test\n")?;
        let mut command = self.host.command(FAIRLEAD);
        command.args(["node", "run", "--join", &format!("https://{CONTROL}:6443"), "--token", token]);
        command.args(["--node-name", &self.name, "--node-ip", &self.address.to_string()]);
        command.arg("--data-dir").arg(self.dir.join("agent"));
        command.arg("--docker-host").arg(self.docker.url());
        command.arg("--cgroup").arg(&self.host.cgroup);
        command.arg("--bpf-pins").arg(Path::new("/sys/fs/bpf").join(&self.host.name));
        command.arg("--resolv-conf").arg(&resolv_conf);
        // What is tested does not depend on how full the machine's disk is.
        command.args(["--eviction-hard", "nodefs.available<0%,imagefs.available<0%"]);
        command.args(more).env("RUST_LOG", "info");
        self.agent = Some(Process::start("agent", command, &self.dir)?);
        Ok(())
    }
}

impl Drop for Cluster {
    /// Agents leave pods and the kernel as they are when they end: containers go with their engine, interfaces with the
    /// namespace, and pins here.
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.agent = None;
            let pins = Path::new("/sys/fs/bpf").join(&node.host.name);
            if pins.exists()
                && let Err(error) = std::fs::remove_dir_all(&pins)
            {
                eprintln!("cannot remove {}: {error}", pins.display());
            }
        }
    }
}

/// Runs `command` with `input` on its standard input.
pub fn with_input(mut command: Command, input: &str) -> Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(format!("{out}{err}"))
    } else {
        Err(format!("{}\n{out}{err}", output.status).into())
    }
}
