//! `fairlead up`: control service and node agent in one process, which leaves the host as it was when it ends.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use fairlead_node_agent::{Running, StartError, Teardown, config::Access};
use tokio_util::sync::CancellationToken;

use super::{
    privileges,
    settings::{self, ClusterArgs, CommonArgs, ControlArgs, LogFormat, NodeArgs},
    shutdown::Shutdown,
};

/// Run a whole cluster on this machine until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead up
  fairlead up --data-dir /srv/fairlead --node-name solo
  fairlead up --datapath userspace

Ctrl-C (or SIGTERM) removes containers, interfaces, routes, BPF pins and settings; what the API held stays in the data
directory and comes back with the next start.")]
pub struct Up {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    control: ControlArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The node of this process needs its token only once: at its first start, or when its certificate is lost. Then it may
/// have to wait until its earlier self counts as silent, for twice the grace period and somewhat more.
fn token_lifetime(grace: Duration) -> Duration {
    grace.saturating_mul(3).saturating_add(Duration::from_secs(600))
}

impl Up {
    /// How the log is written.
    pub fn log_format(&self) -> LogFormat {
        self.common.log_format
    }

    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let network = self.cluster.network()?;
        let control_config = settings::control(&self.common, &network, &self.control)?;
        privileges::require_root("a node")?;
        privileges::require_docker(&self.node.docker_host)?;
        privileges::require_datapath(self.node.datapath)?;
        let mut shutdown = Shutdown::listen()?;
        let lifetime = token_lifetime(control_config.node_monitor_grace_period);
        let control = fairlead_control::start(control_config).await?;
        let token = control.new_join_token(lifetime).await.context("cannot make a join token for this node")?;
        let access = Access::Join { server: server_url(control.address()), token };
        let agent_config = settings::agent(&self.common, &network, &self.node, access)?;
        let stop = CancellationToken::new();
        let mut starting = std::pin::pin!(fairlead_node_agent::start(agent_config, stop.clone()));
        let (agent, ended) = tokio::select! {
            started = &mut starting => (started.map(Some).map_err(anyhow::Error::from), None),
            signal = shutdown.requested() => {
                // A start that is dropped half-way would leave what it had put on the host.
                tracing::info!(signal, "ending as soon as the node has started");
                stop.cancel();
                (finish(starting).await, Some(signal))
            }
        };
        let agent = match agent {
            Ok(Some(agent)) => agent,
            Ok(None) => {
                control.shutdown().await;
                return Ok(());
            }
            Err(error) => {
                control.shutdown().await;
                return Err(error);
            }
        };
        let signal = match ended {
            Some(signal) => signal,
            None => {
                tracing::info!(kubeconfig = %control.admin_kubeconfig().display(), "the cluster is ready");
                shutdown.requested().await
            }
        };
        tracing::info!(signal, "taking everything down");
        let torn_down = agent.shutdown(Teardown::Remove).await;
        control.shutdown().await;
        Ok(torn_down?)
    }
}

/// The rest of a start that is no longer wanted; `None` where the node had not joined yet.
async fn finish(starting: impl Future<Output = Result<Running, StartError>>) -> anyhow::Result<Option<Running>> {
    const START_TIMEOUT: Duration = Duration::from_secs(30);
    let started = tokio::time::timeout(START_TIMEOUT, starting).await;
    match started.context("the node did not start, so what it had put on this host may still be there")? {
        Ok(running) => Ok(Some(running)),
        Err(StartError::Stopped) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where this host itself reaches a server bound to `address`.
fn server_url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("https://127.0.0.1:{}", address.port())
    } else {
        format!("https://{address}")
    }
}
