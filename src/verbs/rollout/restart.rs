//! `fairlead rollout restart`

use anyhow::bail;
use jiff::Timestamp;
use serde_json::json;

use super::Deployment;
use crate::cluster::{ConnectArgs, PatchType, connect, with_query};

/// Replace all pods of a Deployment by new ones, as its strategy says
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead rollout restart deployment/web")]
pub struct Restart {
    /// TYPE NAME…, or TYPE/NAME…
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Restart {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        for deployment in Deployment::all(&cluster, &self.resource).await? {
            if deployment.object["spec"]["paused"] == true {
                bail!("can't restart paused deployment (run rollout resume first)");
            }
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
            let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
            cluster
                .patch(&with_query(&deployment.path, &[("fieldManager", "fairlead")]), PatchType::Strategic, &patch)
                .await?;
            println!("{} restarted", deployment.shown());
        }
        Ok(())
    }
}
