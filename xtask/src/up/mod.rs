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
    build, command,
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
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "this needs root: it makes network interfaces and loads BPF programs"
        );
        // From here on Ctrl-C ends the command that runs, and what was begun is taken back.
        interrupt::listen()?;
        setup(Purpose::Run)?;
        build::release()?;
        if interrupt::requested() {
            return Ok(());
        }
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
    let node_port = cluster.node_port().map_or_else(|_| "NODEPORT".to_owned(), |port| port.to_string());
    let has_kubectl = command::find("kubectl").is_some();
    next_steps_text(&cluster.kubeconfig().display().to_string(), &fairlead, &node_port, has_kubectl)
}

fn next_steps_text(kubeconfig: &str, fairlead: &str, node_port: &str, has_kubectl: bool) -> String {
    let client = if has_kubectl { "kubectl" } else { fairlead };
    let about_kubectl = match has_kubectl {
        true => "",
        false => "\nkubectl is not installed and not needed; it works too, with the same KUBECONFIG.\n",
    };
    format!(
        "Next, in another terminal:

  export KUBECONFIG={kubeconfig}
  {client} get pods -o wide
  {client} scale deployment hello --replicas=5
  {fairlead} get all
  {fairlead} inspect service hello
  {fairlead} logs deployment/web
  {fairlead} delete pod -l app=hello --wait=false && {fairlead} get pods -w
  curl http://127.0.0.1:{node_port}/cgi-bin/ask
{about_kubectl}
Ctrl-C ends it and leaves this host as it was.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_kubectl_no_command_names_it() {
        let text = next_steps_text("/d/admin.kubeconfig", "/t/fairlead", "30080", false);
        let commands: Vec<&str> = text.lines().filter(|line| line.starts_with("  ")).collect();
        assert!(commands.iter().all(|line| !line.contains("kubectl")), "{commands:?}");
        assert!(text.contains("kubectl is not installed"));
        assert!(text.contains("  /t/fairlead get pods -o wide\n"));
    }

    #[test]
    fn with_kubectl_both_are_shown() {
        let text = next_steps_text("/d/admin.kubeconfig", "/t/fairlead", "30080", true);
        assert!(text.contains("  kubectl get pods -o wide\n") && text.contains("  /t/fairlead get all\n"));
        assert!(!text.contains("not installed"));
    }
}
