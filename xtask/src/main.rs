//! The project's own commands: `cargo xtask up`, `test`, `build`, `tidy`, `package`, `bench`, `conformance`,
//! `clients`, `access-matrix`, `differential`, `kubectl-suite`, `peers`, `setup`, `schema`. One module per task.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod access_matrix;
mod bench;
mod build;
mod clients;
mod command;
mod conformance;
mod differential;
mod kubectl_suite;
mod local_server;
mod package;
mod peers;
mod progress;
mod schema;
mod setup;
mod test;
mod tidy;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// fairlead's own build, test and demo commands
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    max_term_width = 120,
    after_help = "A newcomer starts with:  cargo xtask up"
)]
enum Task {
    Up(up::Up),
    Test(test::Test),
    Setup(setup::Setup),
    Build(build::Build),
    Bench(bench::Bench),
    Conformance(conformance::Conformance),
    Clients(clients::Clients),
    Differential(differential::Differential),
    AccessMatrix(access_matrix::AccessMatrix),
    KubectlSuite(kubectl_suite::KubectlSuite),
    Peers(peers::Peers),
    Tidy(tidy::Tidy),
    Package(package::Package),
    Schema(schema::Schema),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Up(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Setup(task) => task.run(),
        Task::Build(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Conformance(task) => task.run(),
        Task::Clients(task) => task.run(),
        Task::Differential(task) => task.run(),
        Task::AccessMatrix(task) => task.run(),
        Task::KubectlSuite(task) => task.run(),
        Task::Peers(task) => task.run(),
        Task::Tidy(task) => task.run(),
        Task::Package(task) => task.run(),
        Task::Schema(task) => task.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
