//! `cargo deny`: licences, banned crates, sources and advisories of every crate that the binary is built from.

use std::process::Command;

use crate::{
    command,
    progress::{self, Step},
    workspace,
};

/// One version for everyone, so that a newer one does not fail a check that passed yesterday.
const VERSION: &str = "0.20.2";

/// Checks what `deny.toml` says; installs `cargo-deny` where it is missing.
///
/// Advisories are kept in a Git repository. Where it cannot be reached, they are not checked, and the output says so.
pub fn check() -> anyhow::Result<()> {
    if command::find("cargo-deny").is_none() {
        install()?;
    }
    let mut checks = vec!["bans", "licenses", "sources"];
    match command::output(deny().args(["fetch", "db"])) {
        Ok(_) => checks.push("advisories"),
        Err(error) => {
            println!("note: security advisories are NOT checked, their database cannot be fetched: {error:#}")
        }
    }
    command::run(deny().args(["--locked", "check", "--hide-inclusion-graph"]).args(checks))
}

fn deny() -> Command {
    let mut cargo = workspace::cargo();
    cargo.arg("deny");
    cargo
}

/// Without optimisation: it runs for seconds, and compiles in a third of the time.
fn install() -> anyhow::Result<()> {
    let step = Step::start("building cargo-deny");
    let mut cargo = workspace::cargo();
    cargo.args(["install", "cargo-deny", "--version", VERSION, "--locked", "--debug"]).env_remove("CARGO_TARGET_DIR");
    progress::follow(&step, &mut cargo, |step, line| step.at(line.trim()))?;
    step.done("");
    Ok(())
}
