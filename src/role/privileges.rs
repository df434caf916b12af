//! What this host must offer before a node can run on it: root, a Docker Engine, BPF. Says what is missing and what to
//! do.

use std::{net::ToSocketAddrs, os::unix::net::UnixStream, path::Path, time::Duration};

use anyhow::bail;
use fairlead_node_agent::mount_table;
use procfs::process::Process;

use super::settings::Datapath;
use crate::failure::ErrorWithHint;

/// A control service that binds and keeps its state below /var/lib needs root only for that; a node needs it for
/// everything.
pub fn require_root(what: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(ErrorWithHint::new(
        format!("{what} needs root: it makes network interfaces, mounts volumes and loads BPF programs"),
        "run it with sudo, or as root",
    )
    .into())
}

/// As [`require_docker`]. But a node that ran before starts without: names and Services come from what it last knew,
/// and pods wait for the Engine.
pub fn expect_docker(host: &str, ran_before: bool) -> anyhow::Result<()> {
    match require_docker(host) {
        Err(error) if ran_before && error.is::<ErrorWithHint>() => {
            tracing::warn!(error = format!("{error:#}"), "this node ran before and starts without the Docker Engine");
            Ok(())
        }
        result => result,
    }
}

/// Connects to the Engine once and says how to get one where there is none.
pub fn require_docker(host: &str) -> anyhow::Result<()> {
    let attempt = if let Some(path) = host.strip_prefix("unix://") {
        UnixStream::connect(path).map(drop)
    } else if let Some(address) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) {
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:2375") };
        address.to_socket_addrs().and_then(|mut found| {
            let first = found.next().ok_or(std::io::ErrorKind::NotFound)?;
            std::net::TcpStream::connect_timeout(&first, Duration::from_secs(5)).map(drop)
        })
    } else {
        bail!("--docker-host {host} is neither unix://PATH nor tcp://HOST:PORT");
    };
    attempt.map_err(|error| {
        let remedy = if Path::new("/usr/bin/dockerd").exists() || Path::new("/usr/sbin/dockerd").exists() {
            "start it: `systemctl start docker`, or `dockerd &` where systemd does not run"
        } else {
            "install it: `apt-get install docker.io`"
        };
        let hint = format!("{remedy}\nor name another Engine with --docker-host or DOCKER_HOST");
        ErrorWithHint::new(format!("the Docker Engine does not answer on {host}: {error}"), hint).into()
    })
}

/// What the kernel and this process's privileges lack for the eBPF datapath; empty where all is there.
pub fn missing_for_bpf() -> Vec<String> {
    let capabilities = match Process::myself().and_then(|process| process.status()) {
        Ok(status) => status.capeff,
        Err(error) => return vec![format!("cannot read the capabilities of this process: {error}")],
    };
    let has_cgroup2 = match mount_table::read() {
        Ok(mounts) => mounts.iter().any(|mount| mount.fs_type == "cgroup2"),
        Err(error) => return vec![format!("cannot read {}: {error}", mount_table::PATH)],
    };
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    missing_requirements(capabilities, has_cgroup2, &release)
}

/// Refuses `--datapath ebpf` where it cannot run; under `auto` the agent takes the other one and says so.
pub fn require_datapath(choice: Datapath) -> anyhow::Result<()> {
    let missing = missing_for_bpf();
    if missing.is_empty() || choice == Datapath::Userspace {
        return Ok(());
    }
    if choice == Datapath::Auto {
        tracing::warn!(missing = missing.join("; "), "eBPF cannot run here: Services will be carried in user space");
        return Ok(());
    }
    Err(ErrorWithHint::new(
        format!("the eBPF datapath cannot run here: {}", missing.join("; ")),
        "provide what is missing, or use --datapath auto or --datapath userspace",
    )
    .into())
}

/// Bits of the effective capabilities (linux/capability.h).
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_BPF: u64 = 1 << 39;

fn missing_requirements(capabilities: u64, has_cgroup2: bool, release: &str) -> Vec<String> {
    let mut missing = Vec::new();
    let has = |bit: u64| capabilities & bit != 0;
    if !has(CAP_SYS_ADMIN) && !has(CAP_BPF) {
        missing.push("this process lacks CAP_BPF (run as root, in a container with --privileged)".to_owned());
    }
    if !has(CAP_SYS_ADMIN) && !has(CAP_NET_ADMIN) {
        missing.push("this process lacks CAP_NET_ADMIN".to_owned());
    }
    if !has_cgroup2 {
        missing.push("no cgroup2 is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)".to_owned());
    }
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if version < (5, 8) {
        missing.push(format!("the kernel is {release}, and 5.8 is the first with all that is needed"));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modern_host_with_root_lacks_nothing() {
        assert_eq!(missing_requirements(0x1ff_ffff_ffff, true, "6.1.0-18-amd64"), Vec::<String>::new());
        assert_eq!(missing_requirements(CAP_BPF | CAP_NET_ADMIN, true, "5.8.0"), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let missing = missing_requirements(0, false, "4.19.0").join("\n");
        for word in ["CAP_BPF", "CAP_NET_ADMIN", "cgroup2", "4.19.0"] {
            assert!(missing.contains(word), "{missing}");
        }
    }

    #[test]
    fn a_node_that_ran_before_starts_without_an_engine_but_not_with_a_wrong_address() {
        assert!(expect_docker("unix:///nonexistent/docker.sock", false).is_err());
        assert!(expect_docker("unix:///nonexistent/docker.sock", true).is_ok());
        assert!(expect_docker("ftp://docker", true).is_err(), "that never becomes right");
    }

    #[test]
    fn an_engine_that_does_not_answer_is_named_with_a_remedy() {
        let error = require_docker("unix:///nonexistent/docker.sock").expect_err("nothing listens there");
        let text = crate::failure::describe(&error);
        assert!(text.contains("unix:///nonexistent/docker.sock") && text.contains("--docker-host"), "{text}");
    }
}
