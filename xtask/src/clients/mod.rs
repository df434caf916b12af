//! `cargo xtask clients`: the clients that people have against a control service of this machine: kube-rs, client-go,
//! the Python and Node.js clients, every kubectl that is installed, and Helm.
//!
//! | file | what it knows |
//! |---|---|
//! | `libraries` | kube-rs, client-go, Python, Node.js: a program each in `tests/clients/`, with what it needs |
//! | `programs` | kubectl and Helm |
//!
//! What the libraries need is kept in `target/clients`.

mod libraries;
mod programs;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Command,
};

use anyhow::{bail, ensure};

use crate::{build, local_server::Server, progress::Step, workspace};

/// Run client libraries, each installed kubectl and Helm against a control service on loopback
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask clients                    all of them\n  \
                        cargo xtask clients --only helm\n  cargo xtask clients --binary target/debug/fairlead")]
pub struct Clients {
    /// Only the clients whose name begins like this: kube-rs, client-go, python, node, kubectl, helm
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Run this build of fairlead [default: the release build, which is made]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// One client to be tried.
struct Client {
    /// `kubectl 1.33`
    name: String,
    run: Box<Run>,
}

type Run = dyn Fn(&Server) -> anyhow::Result<Outcome>;

/// What became of a client that did not fail.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// Its tools are not on this machine.
    Skipped(String),
}

impl Clients {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        let binary = match self.binary {
            Some(binary) => std::path::absolute(binary)?,
            None => {
                build::release()?;
                workspace::release_binary()
            }
        };
        let wanted = |client: &Client| self.only.as_deref().is_none_or(|only| client.name.starts_with(only));
        let clients: Vec<Client> = libraries::all().into_iter().chain(programs::all()).filter(wanted).collect();
        ensure!(!clients.is_empty(), "no client has a name that begins like this");
        let server = Server::start(binary, &[])?;
        let mut failed = Vec::new();
        for Client { name, run } in &clients {
            let step = Step::start(name.clone());
            match run(&server) {
                Ok(Outcome::Passed) => step.done("passed"),
                Ok(Outcome::Skipped(why)) if workspace::is_ci() => {
                    failed.push(format!("{name}: CI=true allows no skipped client, but {why}"));
                }
                Ok(Outcome::Skipped(why)) => println!("{name}: skipped, because {why}"),
                Err(error) => failed.push(format!("{name}: {error:#}")),
            }
        }
        if !failed.is_empty() {
            bail!("{}", failed.join("\n"));
        }
        Ok(())
    }
}

/// A command with these arguments.
fn command<I>(program: impl AsRef<OsStr>, arguments: I) -> Command
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let mut command = Command::new(program);
    command.args(arguments.into_iter().map(Into::into));
    command
}
