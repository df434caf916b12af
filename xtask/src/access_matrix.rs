//! `cargo xtask access-matrix`: who may do what, asked of fairlead and of the real kube-apiserver.

use std::path::PathBuf;

use crate::{
    command,
    setup::{Purpose, setup},
    workspace,
};

/// Ask fairlead and kube-apiserver who may do what, and report where they differ in target/access
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask access-matrix --peers DIR\n  \
                        cargo xtask access-matrix --peers DIR --questions 1000000 -- --parts matrix")]
pub struct AccessMatrix {
    /// Directory where kube-apiserver, kube-controller-manager, etcd and kubectl were built
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_PEERS")]
    peers: PathBuf,
    /// How many questions are asked at most; evenly taken out of all [default: 25000]
    #[arg(long, value_name = "N")]
    questions: Option<usize>,
    /// How many of them are sent as requests, too [default: 2500]
    #[arg(long, value_name = "N")]
    requests: Option<usize>,
    /// More for the test: --parts, --out
    #[arg(last = true, value_name = "ARGUMENT")]
    more: Vec<String>,
}

impl AccessMatrix {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        setup(Purpose::Run)?;
        let mut cargo = workspace::cargo();
        // As a test, not as a bench: what is looked for needs no optimised build.
        cargo.args(["test", "--locked", "--bench", "access", "--"]);
        cargo.arg("--peers").arg(std::path::absolute(self.peers)?);
        for (flag, value) in [("--questions", self.questions), ("--requests", self.requests)] {
            if let Some(value) = value {
                cargo.args([flag, &value.to_string()]);
            }
        }
        cargo.args(self.more);
        command::run(&mut cargo)
    }
}

/// What the matrix asks is read by a file without dependencies, whose tests run here.
#[cfg(test)]
#[path = "../../tests/access/asked.rs"]
#[allow(dead_code, reason = "the matrix needs more of it than its tests")]
mod asked;
