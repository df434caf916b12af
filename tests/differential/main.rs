//! The same requests to fairlead and to the real kube-apiserver: `cargo xtask differential`.
//!
//! ```text
//!   schema data ──mutation──▶ scenario (requests about one object) ──exchange──▶ fairlead
//!   samples.json ────────────┘                                           └─────▶ kube-apiserver + etcd (peers DIR)
//!                                            answers ──normalise──▶ comparison ──▶ justified? ──▶ report
//! ```
//!
//! - **Sample**: one good object of a kind; every kind that the reference serves has one.
//! - **Edit**: one change of an object, good or bad, found by walking its schema.
//! - **Scenario**: a namespace of its own and the requests about one object in it, in order.
//! - **Difference**: one place where two answers disagree after what differs by nature was masked.
//! - **Cause**: differences that look alike; the report counts by it.
//!
//! It passes only if every difference is justified. Neither side runs controllers, so that nothing but the requests
//! changes the objects. Equal seeds give equal requests.

#![allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it")]

#[path = "../cluster/kit/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests need more of the kit than this one")]
mod kit;

#[path = "../bench/fairlead_server.rs"]
#[allow(dead_code, reason = "the benches also restart it")]
mod fairlead_server;
#[path = "../bench/kube_apiserver.rs"]
#[allow(dead_code, reason = "the benches also restart it")]
mod kube_apiserver;

mod causes;
mod choice;
mod comparison;
mod edit;
mod exchange;
mod justified;
mod mutation;
mod normalise;
mod patches;
mod plausible;
mod reads;
mod report;
mod request;
mod resources;
mod run;
mod scenario;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// What `cargo xtask differential` hands on.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Directory where kube-apiserver and etcd were built
    #[arg(long, env = "FAIRLEAD_PEERS")]
    pub peers: PathBuf,
    /// Another seed gives other requests
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many requests are sent to both
    #[arg(long, default_value_t = 2000)]
    pub requests: usize,
    /// Only these kinds, such as Pod
    #[arg(long, value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// Only the scenario of this number, and every request of it in the report
    #[arg(long)]
    pub scenario: Option<u64>,
    /// Directory of the report
    #[arg(long, default_value = "target/differential")]
    pub out: PathBuf,
}

fn main() -> ExitCode {
    // `cargo bench` adds this flag of its own.
    let arguments = Arguments::parse_from(std::env::args().filter(|argument| argument != "--bench"));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run::run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
