//! Kubernetes' own conformance suite against a cluster of two nodes: `cargo xtask conformance`.
//!
//! ```text
//!   peers DIR: e2e.test, ginkgo, agnhost, etcd, kubectl ──images──▶ engines of two nodes (network namespaces)
//!                                     └──suite (on the control host)──▶ ginkgo's JSON ──report──▶ table by group
//! ```
//!
//! It passes only if every spec that ran passed, and at least one ran.

#![allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it")]

#[path = "../cluster/kit/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests need more of the kit than the suite")]
mod kit;

mod images;
mod programs;
mod report;
mod suite;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use kit::{
    Result,
    cluster::{Cluster, NodePlacement},
};

/// What `cargo xtask conformance` hands on.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Regular expression that the names of the specs must match
    #[arg(default_value = r"\[Conformance\]")]
    pub focus: String,
    /// Regular expression of specs to leave out
    #[arg(long)]
    pub skip: Option<String>,
    /// ginkgo label filter, such as '!Serial'
    #[arg(long)]
    pub labels: Option<String>,
    /// How many specs run at once; those marked serial run alone
    #[arg(long, default_value_t = 4)]
    pub procs: u16,
    /// When the whole run is given up
    #[arg(long, default_value = "2h")]
    pub timeout: String,
    /// Datapath of the nodes: ebpf or userspace
    #[arg(long, default_value = "ebpf")]
    pub datapath: String,
    /// Directory of the report
    #[arg(long, default_value = "target/conformance")]
    pub out: PathBuf,
    /// Directory where peers were built
    #[arg(long, env = "FAIRLEAD_PEERS")]
    pub peers: PathBuf,
    /// Leave the cluster up afterwards until the standard input ends
    #[arg(long)]
    pub keep: bool,
}

fn main() -> ExitCode {
    // `cargo bench` adds this flag of its own.
    let arguments = Arguments::parse_from(std::env::args().filter(|argument| argument != "--bench"));
    if let Some(reason) = kit::reason_to_skip() {
        eprintln!("error: the suite cannot run here: {reason}");
        return ExitCode::FAILURE;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every spec passed.
fn run(arguments: &Arguments) -> Result<bool> {
    let peers = programs::Peers::find(&arguments.peers)?;
    std::fs::create_dir_all(&arguments.out)?;
    let out = arguments.out.canonicalize()?;
    let parts = programs::build(&peers, &out.join("images"))?;
    let places = [NodePlacement { link: 1, number: 11 }, NodePlacement { link: 1, number: 12 }];
    let cluster = Cluster::start_with("flconf", &places, &[], &["--datapath", &arguments.datapath])?;
    for node in &cluster.nodes {
        // Names are looked up along the search list to its end: there is no resolver for a domain outside the cluster.
        std::fs::write(node.dir.join("resolv.conf"), "")?;
    }
    images::load(&cluster, &parts)?;
    println!("KUBECONFIG={} in the network namespace {}", cluster.kubeconfig().display(), cluster.control_host.name);
    let outcome = suite::run(&cluster, &peers, arguments, &out);
    for process in cluster.nodes.iter().filter_map(|node| node.agent.as_ref()).chain(&cluster.control) {
        let owner = process.log.parent().and_then(|dir| dir.file_name()).unwrap_or_default().to_string_lossy();
        let name = format!("{owner}-{}", process.log.file_name().unwrap_or_default().to_string_lossy());
        std::fs::copy(&process.log, out.join(name))?;
    }
    if arguments.keep {
        println!("the cluster stays until the standard input ends");
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    }
    let specs = outcome?;
    report::write(&specs, &out)?;
    print!("{}", report::summary(&specs));
    Ok(report::all_passed(&specs))
}
