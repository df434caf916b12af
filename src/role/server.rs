//! `fairlead server`: the control service alone. Nodes join it.

use super::{
    settings::{self, ClusterArgs, CommonArgs, ControlArgs, LogFormat, ServerArgs},
    shutdown::Shutdown,
};

/// Run the control service: API, controllers, scheduler
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead server
  fairlead server --bind 0.0.0.0:6443 --advertise 10.0.0.1 --data-dir /srv/fairlead
  fairlead server --config /etc/fairlead/server.yaml")]
pub struct Server {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    control: ControlArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Server {
    /// How the log is written.
    pub fn log_format(&self) -> LogFormat {
        self.common.log_format
    }

    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut config = settings::control(&self.common, &self.cluster.network()?, &self.control)?;
        config.api_only = self.server.api_only.unwrap_or_default();
        let mut shutdown = Shutdown::listen()?;
        let running = fairlead_control::start(config).await?;
        let kubeconfig = running.admin_kubeconfig().display();
        tracing::info!(%kubeconfig, "nodes join with a token of `fairlead token create`");
        let signal = shutdown.requested().await;
        tracing::info!(signal, "shutting down");
        running.shutdown().await;
        Ok(())
    }
}
