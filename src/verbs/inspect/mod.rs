//! `fairlead inspect …`: what the nodes' kernels do, asked through the API.

mod agent;
mod pod;
mod report;
mod service;

/// Show what each node's kernel does with a Service, or with a pod's host ports
#[derive(Debug, clap::Subcommand)]
pub enum Inspect {
    #[command(visible_aliases = ["svc", "services"])]
    Service(service::InspectService),
    #[command(visible_aliases = ["po", "pods"])]
    Pod(pod::InspectPod),
}

impl Inspect {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Service(verb) => verb.run().await,
            Self::Pod(verb) => verb.run().await,
        }
    }
}
