//! `cargo xtask conformance`: Kubernetes' own conformance suite against a two-node cluster on this machine.

use std::path::PathBuf;

use crate::{
    command,
    setup::{Purpose, setup},
    workspace,
};

/// Run Kubernetes' conformance suite against a two-node cluster, with a report by group in target/conformance
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask conformance --peers DIR                       every conformance spec\n  \
                        cargo xtask conformance '\\[sig-network\\].*\\[Conformance\\]' --peers DIR\n  \
                        cargo xtask conformance --peers DIR -- --labels '!Serial' --keep"
)]
pub struct Conformance {
    /// Regular expression that the names of the specs must match [default: \[Conformance\]]
    #[arg(value_name = "FOCUS")]
    focus: Option<String>,
    /// Directory where e2e.test, ginkgo, agnhost, etcd and kubectl were built
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_PEERS")]
    peers: PathBuf,
    /// More for the runner: --skip, --labels, --procs, --timeout, --datapath, --out, --keep
    #[arg(last = true, value_name = "ARGUMENT")]
    more: Vec<String>,
}

impl Conformance {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        setup(Purpose::Conformance)?;
        let mut cargo = workspace::cargo();
        cargo.args(["bench", "--locked", "--bench", "conformance", "--"]).args(self.focus).args(self.more);
        cargo.env("FAIRLEAD_PEERS", std::path::absolute(self.peers)?);
        command::run(&mut cargo)
    }
}
