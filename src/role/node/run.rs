//! `fairlead node run`: the node agent of this host. Ends without touching its pods or what the kernel serves.

use std::path::PathBuf;

use anyhow::Context;
use fairlead_node_agent::{Teardown, config::Access};
use tokio_util::sync::CancellationToken;

use crate::role::{
    privileges,
    settings::{self, ClusterArgs, CommonArgs, LogFormat, NodeArgs},
    shutdown::Shutdown,
};

/// Run the node agent: pods, their network, Services and names
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead node run --join https://10.0.0.1:6443 --token abcdef.0123456789abcdef.3f…
  fairlead node run --join https://10.0.0.1:6443 --token-file /etc/fairlead/token --node-name worker-1

SIGTERM ends the agent alone: pods keep running and the kernel keeps serving, and the next agent takes them over.")]
pub struct RunNode {
    /// The control service to join
    #[arg(long, value_name = "URL")]
    join: String,
    /// Join token, from `fairlead token create` on the server
    #[arg(long, value_name = "TOKEN", env = "FAIRLEAD_TOKEN", hide_env_values = true)]
    #[arg(required_unless_present = "token_file", conflicts_with = "token_file")]
    token: Option<String>,
    /// File that holds the join token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl RunNode {
    /// How the log is written.
    pub fn log_format(&self) -> LogFormat {
        self.common.log_format
    }

    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        privileges::require_root("a node")?;
        privileges::require_datapath(self.node.datapath)?;
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the token file {}", file.display()))?
                .trim()
                .to_owned(),
            (None, None) => anyhow::bail!("a node joins with --token or --token-file"),
        };
        let access = Access::Join { server: self.join.clone(), token };
        let config = settings::agent(&self.common, &self.cluster.network()?, &self.node, access)?;
        privileges::expect_docker(&config.docker_host, fairlead_node_agent::ran_before(&config))?;
        let mut shutdown = Shutdown::listen()?;
        let running = tokio::select! {
            // A start that is dropped leaves what it has put on the host to the next agent.
            running = fairlead_node_agent::start(config, CancellationToken::new()) => running?,
            signal = shutdown.requested() => {
                tracing::info!(signal, "ended before the node was ready");
                return Ok(());
            }
        };
        tracing::info!("this node is ready");
        let signal = shutdown.requested().await;
        tracing::info!(signal, "shutting down; pods and Services stay");
        running.shutdown(Teardown::Keep).await?;
        Ok(())
    }
}
