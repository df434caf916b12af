//! `fairlead rollout pause` and `resume`

use serde_json::{Value, json};

use super::Deployment;
use crate::cluster::{ConnectArgs, PatchType, connect, with_query};

/// Let changes of a Deployment gather without rolling out
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead rollout pause deployment/web")]
pub struct Pause {
    #[command(flatten)]
    which: PausableObjects,
}

/// Roll out what has gathered since `rollout pause`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead rollout resume deployment/web")]
pub struct Resume {
    #[command(flatten)]
    which: PausableObjects,
}

#[derive(Debug, clap::Args)]
struct PausableObjects {
    /// TYPE NAME…, or TYPE/NAME…
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Pause {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        self.which.set(&json!(true), "paused").await
    }
}

impl Resume {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        self.which.set(&Value::Null, "resumed").await
    }
}

impl PausableObjects {
    async fn set(self, paused: &Value, done: &str) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        for deployment in Deployment::all(&cluster, &self.resource).await? {
            let was = deployment.object["spec"]["paused"] == true;
            anyhow::ensure!(was != (*paused == true), "{} is already {done}", deployment.shown());
            let patch = json!({"spec": {"paused": paused}});
            cluster
                .patch(&with_query(&deployment.path, &[("fieldManager", "fairlead")]), PatchType::Merge, &patch)
                .await?;
            println!("{} {done}", deployment.shown());
        }
        Ok(())
    }
}
