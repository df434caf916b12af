//! The Docker Engine of the demo: the one that is there, or one of its own under the data directory, ended by its pid.

use std::{
    fs,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::engine_traces::EngineTraces;
use crate::{command, progress::Step};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// An Engine that answers.
pub struct Engine {
    url: String,
    own: Option<OwnEngine>,
}

/// The Engine that was started here.
struct OwnEngine {
    child: Child,
    exec_root: PathBuf,
    data_root: PathBuf,
    traces: EngineTraces,
}

impl Engine {
    /// `DOCKER_HOST`, else the default socket where something answers on it, else an Engine of our own.
    pub fn find_or_start(data_dir: &Path) -> anyhow::Result<Self> {
        if let Ok(url) = std::env::var("DOCKER_HOST")
            && !url.is_empty()
        {
            return Ok(Self { url, own: None });
        }
        if UnixStream::connect(DEFAULT_SOCKET).is_ok() {
            return Ok(Self { url: format!("unix://{DEFAULT_SOCKET}"), own: None });
        }
        let step = Step::start("starting a Docker Engine of its own");
        let engine = Self::start(data_dir)?;
        step.done(&engine.url);
        Ok(engine)
    }

    /// What `DOCKER_HOST` is set to for this Engine.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `docker ARGUMENTS` on this Engine.
    pub fn docker(&self) -> Command {
        let mut command = Command::new(command::find("docker").unwrap_or_else(|| "docker".into()));
        command.env("DOCKER_HOST", &self.url);
        command
    }

    /// Without networks and firewall rules of Docker's: the pods have fairlead's.
    fn start(data_dir: &Path) -> anyhow::Result<Self> {
        let program = command::find("dockerd").context("dockerd is not installed")?;
        // In the data directory paths of sockets could be longer than the 107 bytes that the kernel takes.
        let run = PathBuf::from(format!("/run/fairlead-engine-{}", std::process::id()));
        let (data_root, exec_root) = (data_dir.join("docker"), run.join("exec"));
        fs::create_dir_all(&exec_root).with_context(|| format!("cannot make {}", exec_root.display()))?;
        let socket = run.join("docker.sock");
        let log_path = data_dir.join("dockerd.log");
        let log = fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
        let url = format!("unix://{}", socket.display());
        let traces = EngineTraces::expected();
        let mut child = Command::new(program)
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"])
            .arg("--data-root")
            .arg(&data_root)
            .arg("--exec-root")
            .arg(&exec_root)
            .arg("--pidfile")
            .arg(run.join("pid"))
            .args(["-H", &url])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C on the terminal must not reach it before its containers are gone.
            .process_group(0)
            .spawn()
            .context("cannot start dockerd")?;
        let started = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("dockerd ended ({status}):\n{}", tail(&log_path));
            }
            if started.elapsed() > Duration::from_secs(60) {
                end(&mut child)?;
                bail!("dockerd does not answer:\n{}", tail(&log_path));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { url, own: Some(OwnEngine { child, exec_root, data_root, traces }) })
    }

    /// Ends an Engine of our own and takes away what it leaves on the host; its data stays in the data directory.
    pub fn stop(self) -> anyhow::Result<()> {
        let Some(mut own) = self.own else { return Ok(()) };
        end(&mut own.child)?;
        unmount_below(&[&own.exec_root, &own.data_root])?;
        let run = own.exec_root.parent().context("the run directory has a parent")?;
        fs::remove_dir_all(run).with_context(|| format!("cannot remove {}", run.display()))?;
        own.traces.remove()
    }
}

/// SIGTERM, and a wait for the end.
pub fn end(child: &mut Child) -> anyhow::Result<()> {
    if child.try_wait()?.is_none() {
        kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM).context("cannot signal the process")?;
        child.wait().context("cannot wait for the process")?;
    }
    Ok(())
}

/// The last lines of a log.
pub fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn unmount_below(directories: &[&Path]) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    // The innermost come last.
    for line in mounts.lines().rev() {
        let Some(target) = line.split(' ').nth(1) else { continue };
        if directories.iter().any(|directory| Path::new(target).starts_with(directory)) {
            command::output(Command::new("umount").arg(target))?;
        }
    }
    Ok(())
}
