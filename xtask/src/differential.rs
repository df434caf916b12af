//! `cargo xtask differential`: the same requests to fairlead and to the real kube-apiserver.

use std::path::PathBuf;

use crate::{
    command,
    setup::{Purpose, setup},
    workspace,
};

/// Send the same requests to fairlead and to kube-apiserver, and report where they differ in target/differential
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask differential --peers DIR\n  \
                        cargo xtask differential --peers DIR --seed 7 --requests 10000 -- --kinds Pod,Service")]
pub struct Differential {
    /// Directory where kube-apiserver and etcd were built
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_PEERS")]
    peers: PathBuf,
    /// Another seed gives other requests [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many requests are sent to both [default: 2000]
    #[arg(long, value_name = "N")]
    requests: Option<usize>,
    /// More for the test: --kinds, --out, --scenario
    #[arg(last = true, value_name = "ARGUMENT")]
    more: Vec<String>,
}

impl Differential {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        setup(Purpose::Run)?;
        let mut cargo = workspace::cargo();
        // As a test, not as a bench: what is looked for needs no optimised build.
        cargo.args(["test", "--locked", "--bench", "differential", "--"]);
        cargo.arg("--peers").arg(std::path::absolute(self.peers)?);
        for (flag, value) in
            [("--seed", self.seed.map(|n| n.to_string())), ("--requests", self.requests.map(|n| n.to_string()))]
        {
            if let Some(value) = value {
                cargo.args([flag, &value]);
            }
        }
        cargo.args(self.more);
        command::run(&mut cargo)
    }
}
