//! What the end-to-end tests are made of: hosts as network namespaces, processes, Docker engines, clusters.

mod bounded_runc;
pub mod cluster;
pub mod docker;
pub mod host;
pub mod images;
pub mod lab;
pub mod process;
pub mod wait;
pub mod work_dir;

pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Why the tests that need a real machine cannot run here; `None` where they can.
pub fn reason_to_skip() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root: network namespaces, BPF and Docker need it".into());
    }
    for program in ["dockerd", "docker", "docker-registry", "nft", "ip", "busybox", "curl"] {
        if !on_path(program) {
            return Some(format!("no {program} is on the path: `cargo xtask setup` installs it"));
        }
    }
    if !on_path("kubectl") {
        return Some(
            "no kubectl is on the path: https://kubernetes.io/docs/tasks/tools/ says how to install it".into(),
        );
    }
    if host::cgroup2_root().is_none() {
        return Some("no cgroup2 hierarchy is mounted".into());
    }
    None
}

pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs `command` to its end; an error carries what it printed.
pub fn run(command: &mut std::process::Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(format!("{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)).into());
    }
    Ok(text(&output.stdout))
}
