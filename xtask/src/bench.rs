//! `cargo xtask bench`: sets the machine up and runs the benches of `tests/bench`, beside the peers where they were
//! built.

use std::path::PathBuf;

use crate::{
    command,
    setup::{Purpose, setup},
    workspace,
};

/// Run the benches: a table each, and JSON and an SVG plot in target/bench
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Only these benches, such as connect or control
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Directory where the peers (kube-proxy, etcd, kube-apiserver…) were built
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_PEERS")]
    peers: Option<PathBuf>,
    /// Sizes of the benches `api` and `access` in percent of the full ones, for a quick look; above 100 only the pods
    /// of `api` become more
    #[arg(long, value_name = "PERCENT", env = "FAIRLEAD_BENCH_SCALE")]
    scale: Option<u32>,
    /// Pods of the bench `api` when memory and restarts are measured, such as 100000 [default: 10000]
    #[arg(long, value_name = "COUNT", env = "FAIRLEAD_BENCH_PODS")]
    pods: Option<u32>,
    /// Parts of the bench `api`: creates, lists, updates, admission, watches, memory; or of `access`: connections,
    /// rbac, tokens, heartbeats, streams [default: all]
    #[arg(long, value_name = "PART", value_delimiter = ',', env = "FAIRLEAD_BENCH_PARTS")]
    parts: Vec<String>,
}

impl Bench {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        setup(Purpose::Test)?;
        let mut cargo = workspace::cargo();
        cargo.args(["bench", "--locked", "--bench", "peers", "--"]).args(&self.names);
        if let Some(peers) = &self.peers {
            cargo.env("FAIRLEAD_PEERS", peers);
        }
        for (variable, value) in [("FAIRLEAD_BENCH_SCALE", self.scale), ("FAIRLEAD_BENCH_PODS", self.pods)] {
            if let Some(value) = value {
                cargo.env(variable, value.to_string());
            }
        }
        if !self.parts.is_empty() {
            cargo.env("FAIRLEAD_BENCH_PARTS", self.parts.join(","));
        }
        command::run(&mut cargo)?;
        println!("results: {}", workspace::target_dir().join("bench").display());
        Ok(())
    }
}
