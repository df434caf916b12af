//! A control service on loopback with a directory of its own. Both go when it is dropped.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// How long it may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `fairlead server`.
pub struct Server {
    child: Child,
    dir: TempDir,
    binary: PathBuf,
    port: u16,
}

impl Server {
    /// Starts it with `flags` beside those that it needs, and returns when it serves.
    pub fn start(binary: PathBuf, flags: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a directory")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(dir.path().join("log")).context("cannot write the log")?;
        let child = Command::new(&binary)
            .args(["server", "--bind", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(dir.path().join("data"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut server = Self { child, dir, binary, port };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("data/admin.kubeconfig")
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients may keep files.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// A command as the administrator, with a home of its own.
    pub fn as_administrator(&self, mut command: Command) -> Command {
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.scratch().join("home"));
        // Helm keeps its files there first.
        for variable in [
            "HELM_CACHE_HOME",
            "HELM_CONFIG_HOME",
            "HELM_DATA_HOME",
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
        ] {
            command.env_remove(variable);
        }
        command
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let mut question = Command::new(&self.binary);
            question.args(["get", "namespaces", "kube-system"]).stdout(Stdio::null()).stderr(Stdio::null());
            if self.kubeconfig().exists()
                && self.as_administrator(question).status().is_ok_and(|status| status.success())
            {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                bail!("the control service does not serve:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("cannot end the control service: {error}");
        }
    }
}
