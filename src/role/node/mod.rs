//! `fairlead node …`: this host as a node of a cluster.

mod install;
mod run;
mod status;
mod systemd;
mod uninstall;
mod unit;

pub use unit::UNIT_NAME;

/// Make this host a node of a cluster
#[derive(Debug, clap::Subcommand)]
pub enum Node {
    Run(Box<run::Run>),
    Install(install::Install),
    Uninstall(uninstall::Uninstall),
    Status(status::Status),
}

impl Node {
    /// Whether this process is to be the node itself.
    pub fn is_role(&self) -> bool {
        matches!(self, Self::Run(_))
    }

    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Run(verb) => verb.run().await,
            Self::Install(verb) => verb.run(),
            Self::Uninstall(verb) => verb.run(),
            Self::Status(verb) => verb.run().await,
        }
    }
}
