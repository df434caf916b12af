//! Who may do what, asked of fairlead and of the real kube-apiserver: `cargo xtask access-matrix`.
//!
//! ```text
//!   subjects × questions ──SubjectAccessReview───────▶ fairlead ───────────────▶ comparison ──▶ justified? ──▶ report
//!            └─ a sample ──request by impersonation──▶ kube-apiserver + etcd (peers DIR)
//!   subjects ─────────────SelfSubjectRulesReview─────▶ (and what kubectl makes of it)
//!   cases ────────────────requests with credentials──▶
//! ```
//!
//! - **Subject**: a user with groups. Every default role has one that is bound to it everywhere and one that is bound
//!   to it in a namespace; others have made roles, or are nodes, accounts, nobody.
//! - **Question**: a verb on a resource, or on a path. Every resource and subresource that the reference serves.
//! - **Case**: requests by which somebody reaches for what is not theirs, or shows a credential that is not good.
//!
//! Both servers have one CA, one key for tokens and the same objects; kube-controller-manager runs beside each, for
//! aggregated roles and for the tokens in Secrets alone. It passes only if every difference is justified.

#![allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it")]

#[path = "../cluster/kit/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests need more of the kit than this one")]
mod kit;

#[path = "../differential/comparison.rs"]
mod comparison;
#[path = "../bench/fairlead_server.rs"]
#[allow(dead_code, reason = "the benches also restart it")]
mod fairlead_server;
#[path = "../bench/kube_apiserver.rs"]
#[allow(dead_code, reason = "the benches also restart it")]
mod kube_apiserver;
#[path = "../differential/normalise.rs"]
mod normalise;

mod asked;
mod cases;
mod credentials;
mod exchange;
mod justified;
mod objects;
mod questions;
mod report;
mod requests;
mod reviews;
mod rules;
mod run;
mod servers;
mod subjects;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// What `cargo xtask access-matrix` hands on.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Directory where kube-apiserver, kube-controller-manager, etcd and kubectl were built
    #[arg(long, env = "FAIRLEAD_PEERS")]
    pub peers: PathBuf,
    /// How many questions are asked at most; evenly taken out of all
    #[arg(long, default_value_t = 25_000)]
    pub questions: usize,
    /// How many of them are sent as requests, too
    #[arg(long, default_value_t = 2_500)]
    pub requests: usize,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    pub parts: Vec<run::Part>,
    /// Directory of the report
    #[arg(long, default_value = "target/access")]
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
