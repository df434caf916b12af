//! Benches beside real peers, interleaved in one run: `cargo xtask bench`. Figures, not tests: nothing here passes or
//! fails.

#![allow(clippy::arithmetic_side_effects, reason = "a bench that panics has no figure")]

#[path = "../cluster/kit/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests need more of the kit than the benches")]
mod kit;

mod access;
mod access_connections;
mod access_heartbeats;
mod access_load;
mod access_rbac;
mod access_streams;
mod access_tokens;
mod agent_datapath;
mod api;
mod api_admission;
mod api_load;
mod api_watchers;
mod api_writes;
mod bench_cluster;
mod connect;
mod contestant;
mod control;
mod dns;
mod dns_load;
mod fairlead_server;
mod footprint;
mod kube_apiserver;
mod kube_proxy;
mod kubernetes;
mod load;
mod nft_events;
mod parts;
mod plot;
mod pods;
mod program;
mod report;
mod services;
#[path = "../skipped.rs"]
mod skipped;

use std::path::PathBuf;

fn main() -> std::process::ExitCode {
    // `cargo bench` adds this flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let children = [load::as_child, dns_load::as_child, access_heartbeats::as_child, access_streams::as_child];
    if let Some(outcome) = children.iter().find_map(|as_child| as_child(&arguments)) {
        return match outcome {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                std::process::ExitCode::FAILURE
            }
        };
    }
    if let Some(reason) = kit::reason_to_skip() {
        skipped::skipped(reason);
        return std::process::ExitCode::SUCCESS;
    }
    let peers = PathBuf::from(std::env::var_os("FAIRLEAD_PEERS").unwrap_or_else(|| "target/peers".into()));
    let results = PathBuf::from("target/bench");
    let mut failed = false;
    for (name, bench) in BENCHES {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            println!("bench {name}");
            if let Err(error) = bench(&peers, &results) {
                eprintln!("bench {name}: {error}");
                failed = true;
            }
        }
    }
    if failed { std::process::ExitCode::FAILURE } else { std::process::ExitCode::SUCCESS }
}

type Bench = fn(&std::path::Path, &std::path::Path) -> kit::Result;

const BENCHES: &[(&str, Bench)] = &[
    ("connect", connect::run),
    ("program", program::run),
    ("control", control::run),
    ("api", api::run),
    ("access", access::run),
    ("dns", dns::run),
    ("pods", pods::run_bench),
    ("footprint", footprint::run_bench),
];
