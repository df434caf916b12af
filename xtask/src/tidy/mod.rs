//! `cargo xtask tidy`: what reviewers should not have to look for.

mod circles;
mod deny;
mod dependencies;
mod layout;
mod pages;
mod rust_version;
mod sources;
mod type_names;
mod unused;

use std::process::Command;

use serde_json::Value;

use self::sources::Source;
use crate::{
    command,
    setup::{Purpose, setup},
    workspace,
};

/// Check layout, dependencies, licences, advisories, formatting and lints
#[derive(Debug, clap::Args)]
pub struct Tidy {
    /// Only what needs no compiler: layout, and dependencies among our own crates
    #[arg(long)]
    fast: bool,
}

impl Tidy {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        let sources = Source::all()?;
        let mut problems = layout::unexpected_entries()?;
        problems.extend(sources.iter().flat_map(layout::problems));
        problems.extend(circles::problems(&sources));
        problems.extend(type_names::problems(&sources));
        problems.extend(pages::problems()?);
        for remark in sources.iter().flat_map(layout::remarks) {
            println!("note: {remark}");
        }
        let members = metadata(&["--no-deps"])?;
        problems.extend(dependencies::problems(&members));
        problems.extend(unused::problems(&members, &sources)?);
        if !self.fast {
            problems.extend(rust_version::problems(&metadata(&["--filter-platform", PLATFORM])?));
        }
        for problem in &problems {
            println!("{problem}");
        }
        if !self.fast {
            compiled(&members)?;
        }
        anyhow::ensure!(problems.is_empty(), "{} problem(s)", problems.len());
        println!("tidy");
        Ok(())
    }
}

/// Dependencies of other systems are never built.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The checks that need a compiler, or a tool that one must build.
fn compiled(members: &Value) -> anyhow::Result<()> {
    command::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    deny::check()?;
    // The node agent's build script compiles the BPF programs.
    setup(Purpose::Run)?;
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    command::run(workspace::cargo().args(lints))?;
    if let Some(remark) = rust_version::remark(members, &command::output(Command::new("rustc").arg("--version"))?) {
        println!("{remark}");
    }
    Ok(())
}

fn metadata(more: &[&str]) -> anyhow::Result<Value> {
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked"]).args(more);
    Ok(serde_json::from_str(&command::output(&mut cargo)?)?)
}
