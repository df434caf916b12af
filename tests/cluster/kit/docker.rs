//! A Docker engine of its own for a host: nothing of the machine's Docker is touched.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Result, bounded_runc, host::Host, process::Process, run, wait};

pub struct Docker {
    pub socket: PathBuf,
    dir: PathBuf,
    process: Option<Process>,
}

impl Docker {
    /// Starts `dockerd` on `host` with its data in `dir`, and waits until it answers.
    pub fn start(host: &Host, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut docker = Self { socket: dir.join("docker.sock"), dir: dir.to_owned(), process: None };
        docker.launch(host)?;
        Ok(docker)
    }

    fn launch(&mut self, host: &Host) -> Result {
        let dir = &self.dir;
        let mut command = host.command("dockerd");
        command
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"])
            .args(["--log-level=warn", "--live-restore=false"])
            .arg(format!("--data-root={}", dir.join("data").display()))
            .arg(format!("--exec-root={}", dir.join("exec").display()))
            .arg(format!("--pidfile={}", dir.join("docker.pid").display()))
            .arg(format!("--cgroup-parent=/{}", host.name))
            .arg(format!("--host=unix://{}", self.socket.display()));
        if let Some(runc) = bounded_runc::write(dir)? {
            command.arg(format!("--add-runtime=bounded={}", runc.display())).arg("--default-runtime=bounded");
        }
        self.process = Some(Process::start("dockerd", command, dir)?);
        wait::until("dockerd to answer", Duration::from_secs(30), || self.cli(&["version"]).map(|_| ()))
    }

    /// Ends the engine (its containers too) and starts it again.
    pub fn restart(&mut self, host: &Host) -> Result {
        self.stop()?;
        self.launch(host)
    }

    /// Ends the engine, its containers too.
    pub fn stop(&mut self) -> Result {
        match self.process.take() {
            Some(mut process) => process.terminate(Duration::from_secs(60)).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The docker client against this engine.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("docker").arg("--host").arg(self.url()).args(arguments))
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let containers = self.cli(&["ps", "--all", "--quiet"]).unwrap_or_default();
        let ids: Vec<&str> = containers.split_whitespace().collect();
        if !ids.is_empty() {
            let arguments: Vec<&str> = ["rm", "--force", "--volumes"].into_iter().chain(ids).collect();
            if let Err(error) = self.cli(&arguments) {
                eprintln!("cannot remove containers: {error}");
            }
        }
    }
}
