//! `fairlead node …`: this host as a node of a cluster.

mod install;
mod managed_file;
mod run;
mod status;
mod systemd;
mod uninstall;
mod unit;

use super::LogFormat;
pub use unit::UNIT_NAME;

/// Make this host a node of a cluster
#[derive(Debug, clap::Subcommand)]
pub enum Node {
    Run(Box<run::RunNode>),
    Install(install::Install),
    Uninstall(uninstall::Uninstall),
    Status(status::NodeStatus),
}

impl Node {
    /// How the log is written, where this process is to be the node itself.
    pub fn log_format(&self) -> Option<LogFormat> {
        match self {
            Self::Run(verb) => Some(verb.log_format()),
            _ => None,
        }
    }

    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Run(verb) => verb.run().await,
            Self::Install(verb) => verb.run(),
            Self::Uninstall(verb) => verb.run(),
            Self::Status(verb) => verb.run().await,
        }
    }
}
