//! `fairlead up`: a whole cluster in one process, and a host that is as it was when it has ended.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{
    kit::{
        Result,
        cluster::{FAIRLEAD, PATIENCE},
        docker::Docker,
        host::Host,
        images::{self, Images},
        lab::Lab,
        process::Process,
        run, wait,
    },
    three_nodes::web,
};

/// Starts it twice over the same data: pods and Services of the first run are back in the second, and nothing is left
/// after each.
pub fn up_leaves_the_host_as_it_was() -> Result {
    let dir = tempfile::Builder::new().prefix("flup-").tempdir()?;
    let mut lab = Lab::new("flup")?;
    let host = lab.host("host", 1, 1)?;
    let docker = Docker::start(&host, &dir.path().join("docker"))?;
    Images::build(dir.path())?.import(&docker, images::WEB)?;
    let data = dir.path().join("data");
    let pins = Path::new("/sys/fs/bpf").join(&host.name);
    std::fs::write(dir.path().join("resolv.conf"), "search example.test\n")?;
    let before = HostState::read(&host, &docker, &data, &pins)?;
    for round in 0..2 {
        let mut command = host.command(FAIRLEAD);
        command.args(["up", "--node-name", "solo", "--data-dir"]).arg(&data);
        command.args(["--eviction-hard", "nodefs.available<0%,imagefs.available<0%"]);
        command.arg("--docker-host").arg(docker.url());
        command.arg("--cgroup").arg(&host.cgroup).arg("--bpf-pins").arg(&pins);
        command.arg("--resolv-conf").arg(dir.path().join("resolv.conf"));
        let mut up = Process::start("up", command, dir.path())?;
        let kubeconfig = dir.path().join("data/admin.kubeconfig");
        let fairlead = |arguments: &[&str]| run(host.command(FAIRLEAD).env("KUBECONFIG", &kubeconfig).args(arguments));
        wait::until("the node to be Ready", PATIENCE, || {
            let nodes = fairlead(&["get", "nodes"])?;
            if nodes.contains(" Ready ") { Ok(()) } else { Err(nodes.into()) }
        })
        .map_err(|error| format!("{error}\n{}", up.tail()))?;
        if round == 0 {
            let manifest = dir.path().join("web.yaml");
            std::fs::write(&manifest, web("web", 2))?;
            fairlead(&["apply", "-f", &manifest.display().to_string()])?;
        }
        fairlead(&["rollout", "status", "deployment/web", "--timeout=90s"])
            .map_err(|error| format!("{error}\n{}", up.tail()))?;
        let service: serde_json::Value = serde_json::from_str(&fairlead(&["get", "service", "web", "-o", "json"])?)?;
        let address = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
        wait::until("the Service to answer", PATIENCE, || {
            host.sh(&format!("timeout 5 busybox wget -q -O - http://{address}/")).map(|_| ())
        })?;
        let status = up.terminate(Duration::from_secs(60))?;
        if !status.success() {
            return Err(format!("up ended with {status}\n{}", up.tail()).into());
        }
        let after = HostState::read(&host, &docker, &data, &pins)?;
        if let Some(difference) = before.difference(&after) {
            return Err(format!("round {round}: {difference}\n{}", up.tail()).into());
        }
    }
    Ok(())
}

/// Everything that an agent may change on a host. IPv6 is left out: the kernel itself is still settling its link-local
/// addresses.
struct HostState(BTreeMap<&'static str, String>);

impl HostState {
    fn read(host: &Host, docker: &Docker, data: &Path, pins: &Path) -> Result<Self> {
        let sysctls = "for f in ip_forward conf/all/forwarding conf/all/rp_filter conf/default/rp_filter \
                       conf/eth0/rp_filter conf/all/accept_local conf/eth0/accept_local conf/all/route_localnet \
                       conf/eth0/route_localnet; do echo $f $(cat /proc/sys/net/ipv4/$f); done";
        Ok(Self(BTreeMap::from([
            ("interfaces", host.sh("ip -o link | cut -d' ' -f2")?),
            ("addresses", host.sh("ip -4 -o addr | awk '{print $2, $3, $4}'")?),
            ("routes", host.ip("-4 route show table all")?),
            ("rules", host.ip("rule")?),
            ("firewall", host.sh("nft list ruleset")?),
            ("queueing disciplines", host.sh("tc qdisc show | sort")?),
            ("sysctls", host.sh(sysctls)?),
            ("mounts", mounts(data, pins)?),
            ("containers", docker.cli(&["ps", "--all", "--quiet"])?),
            ("pins", listing(pins)),
            ("cgroups", listing(&host.cgroup)),
        ])))
    }

    /// The first thing that is not as it was.
    fn difference(&self, after: &Self) -> Option<String> {
        let changed = self.0.iter().find(|(what, text)| after.0.get(*what) != Some(text));
        changed.map(|(what, text)| format!("{what} were\n{text}\nand are\n{}", after.0[what]))
    }
}

/// Mounts that this host's cluster could have made; other tests on the machine make theirs.
fn mounts(data: &Path, pins: &Path) -> Result<String> {
    let all = std::fs::read_to_string("/proc/self/mounts")?;
    let (data, pins) = (data.display().to_string(), pins.display().to_string());
    let ours = |line: &&str| line.contains(&data) || line.contains(&pins) || line.contains(" bpf ");
    Ok(all.lines().filter(ours).collect::<Vec<_>>().join("\n"))
}

/// Names of the directories below `dir`, and of all files where `dir` is on a bpffs.
fn listing(dir: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    format!("{} {}", if dir.exists() { "present" } else { "absent" }, names.join(" "))
}
