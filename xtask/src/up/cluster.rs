//! The cluster of the demo: `fairlead up` as a process, and questions to it through the CLI.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;

use super::{
    engine::{Engine, end, tail},
    interrupt,
};
use crate::{command, progress::Step, workspace};

/// A running `fairlead up`.
pub struct Cluster {
    child: Child,
    kubeconfig: PathBuf,
    log: PathBuf,
    /// In whole seconds, as the API tells times.
    started: Timestamp,
}

impl Cluster {
    /// Starts `fairlead up` on `engine`; its output goes to `up.log` in the data directory.
    pub fn start(data_dir: &Path, engine: &Engine, flags: &[String]) -> anyhow::Result<Self> {
        let log = data_dir.join("up.log");
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let started = Timestamp::from_second(Timestamp::now().as_second())?;
        let child = Command::new(workspace::release_binary())
            .arg("up")
            .arg("--data-dir")
            .arg(data_dir)
            .args(flags)
            .env("DOCKER_HOST", engine.url())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C is handled by this task, which stops everything in order.
            .process_group(0)
            .spawn()
            .context("cannot start fairlead up")?;
        Ok(Self { child, kubeconfig: data_dir.join("admin.kubeconfig"), log, started })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `fairlead` as the administrator.
    pub fn fairlead(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(workspace::release_binary());
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command
    }

    /// A value of an object, by JSONPath.
    pub fn value(&self, object: &str, path: &str) -> anyhow::Result<String> {
        command::output(&mut self.fairlead(&["get", object, "-o", &format!("jsonpath={path}")]))
    }

    /// The NodePort of the demo's Service `web`.
    pub fn node_port(&self) -> anyhow::Result<u16> {
        Ok(self.value("service/web", "{.spec.ports[0].nodePort}")?.parse()?)
    }

    /// Waits for the node to be Ready. False when the user has ended it meanwhile.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<bool> {
        let step = Step::start("starting the cluster");
        const LIMIT: Duration = Duration::from_secs(120);
        let asked = Instant::now();
        loop {
            if interrupt::requested() {
                return Ok(false);
            }
            self.check()?;
            if self.kubeconfig.exists() && self.is_ready() {
                step.done(&format!("ready; its log is {}", self.log.display()));
                return Ok(true);
            }
            ensure!(asked.elapsed() < LIMIT, "the cluster is not ready after two minutes:\n{}", tail(&self.log));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether the node says that it is Ready, and says so since this start: what an earlier one said may still stand
    /// there.
    fn is_ready(&self) -> bool {
        let ready = |field: &str| {
            self.value("nodes", &format!("{{.items[*].status.conditions[?(@.type==\"Ready\")].{field}}}"))
        };
        let since_start = |time: String| time.trim().parse::<Timestamp>().is_ok_and(|time| time >= self.started);
        ready("status").is_ok_and(|status| status == "True") && ready("lastHeartbeatTime").is_ok_and(since_start)
    }

    /// Returns at Ctrl-C; fails when the cluster ends by itself.
    pub fn wait_for_the_end(&mut self) -> anyhow::Result<()> {
        while !interrupt::requested() {
            self.check()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        println!();
        Ok(())
    }

    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("fairlead up ended ({status}):\n{}", tail(&self.log));
        }
        Ok(())
    }

    /// SIGTERM, and a wait until it has taken everything down.
    pub fn stop(mut self) -> anyhow::Result<()> {
        end(&mut self.child)
    }
}
