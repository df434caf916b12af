//! `fairlead inspect …`: what the nodes' kernels do, asked through the API.

mod report;
mod service;

/// Show what each node's kernel does with a Service
#[derive(Debug, clap::Subcommand)]
pub enum Inspect {
    #[command(visible_aliases = ["svc", "services"])]
    Service(service::Service),
}

impl Inspect {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Service(verb) => verb.run().await,
        }
    }
}
