//! `cargo xtask up`: from a fresh machine to a running cluster with a demo that is proved by real requests; Ctrl-C
//! undoes it all.

mod cluster;
mod demo;
mod engine;
mod engine_traces;
mod host_state;
mod http;
mod interrupt;
mod proof;

use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::{
    build,
    progress::Step,
    setup::{Purpose, setup},
};
use cluster::Cluster;
use engine::Engine;
use host_state::HostState;

/// Set up, build, start a one-node cluster with a demo, prove it, and run until Ctrl-C
#[derive(Debug, clap::Args)]
pub struct Up {
    /// Holds all state of the cluster, and of a Docker Engine that is started for it
    #[arg(long, value_name = "DIR", default_value = "/var/lib/fairlead")]
    data_dir: PathBuf,
    /// End when the demo is proved, without waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// More flags for `fairlead up`, behind `--`
    #[arg(last = true, value_name = "FLAG")]
    flags: Vec<String>,
}

impl Up {
    pub fn run(self) -> anyhow::Result<()> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "this needs root: it makes network interfaces and loads BPF programs"
        );
        setup(Purpose::Run)?;
        build::release()?;
        interrupt::listen()?;
        let before = HostState::read();
        let outcome = self.cluster();
        let left = before.left_over(&HostState::read(), &self.data_dir);
        if left.is_empty() {
            println!("The host is as it was; the cluster's state is kept in {}.", self.data_dir.display());
        }
        for item in &left {
            println!("left behind: {item}");
        }
        outcome?;
        ensure!(left.is_empty(), "the host is not as it was");
        Ok(())
    }

    /// Everything between the two looks at the host; each part is undone in reverse, also after a failure.
    fn cluster(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.data_dir).with_context(|| format!("cannot make {}", self.data_dir.display()))?;
        let engine = Engine::find_or_start(&self.data_dir)?;
        let outcome = self.on(&engine);
        outcome.and(engine.stop())
    }

    fn on(&self, engine: &Engine) -> anyhow::Result<()> {
        let image = demo::import(engine)?;
        let outcome = Cluster::start(&self.data_dir, engine, &self.flags).and_then(|mut cluster| {
            let outcome = match self.show(&mut cluster) {
                // Ctrl-C also ends the commands that were waited for; that is no failure.
                Err(_) if interrupt::requested() => Ok(()),
                outcome => outcome,
            };
            let step = Step::start("taking the cluster down");
            let stopped = cluster.stop();
            if stopped.is_ok() {
                step.done("");
            }
            outcome.and(stopped)
        });
        outcome.and(image.remove(engine))
    }

    fn show(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        if !cluster.wait_until_ready()? {
            return Ok(());
        }
        demo::apply(cluster)?;
        println!("\n{}", proof::prove(cluster)?);
        println!("{}", next_steps(cluster));
        if !self.once {
            cluster.wait_for_the_end()?;
        }
        Ok(())
    }
}

/// What to type next, in another terminal.
fn next_steps(cluster: &Cluster) -> String {
    let fairlead = crate::workspace::release_binary().display().to_string();
    format!(
        "Next, in another terminal:

  export KUBECONFIG={kubeconfig}
  kubectl get pods -o wide
  kubectl scale deployment hello --replicas=5
  {fairlead} get all
  {fairlead} inspect service hello
  {fairlead} logs deployment/web
  {fairlead} delete pod -l app=hello --wait=false && {fairlead} get pods -w
  curl http://127.0.0.1:{node_port}/cgi-bin/ask

Ctrl-C ends it and leaves this host as it was.",
        kubeconfig = cluster.kubeconfig().display(),
        node_port = cluster.node_port().map_or_else(|_| "NODEPORT".to_owned(), |port| port.to_string()),
    )
}
