//! `fairlead scale`: sets a number of replicas through the `/scale` subresource.

use anyhow::bail;
use serde_json::json;

use super::objects::{ObjectQuery, WithoutNames};
use crate::{
    cluster::{ConnectArgs, PatchType, connect},
    failure::{self, AlreadyReported},
};

/// Set the number of replicas
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead scale deployment web --replicas=5
  fairlead scale deploy/web deploy/hello --replicas=2
  fairlead scale rs frontend --replicas=3 --current-replicas=1")]
pub struct Scale {
    /// TYPE NAME…, or TYPE/NAME…
    #[arg(value_name = "RESOURCE", required = true)]
    resources: Vec<String>,
    /// How many
    #[arg(long, value_name = "NUMBER")]
    replicas: u32,
    /// Only if there are so many now
    #[arg(long, value_name = "NUMBER")]
    current_replicas: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Scale {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let mut failed = false;
        let query = ObjectQuery { words: &self.resources, unnamed: WithoutNames::Refused, ..ObjectQuery::default() };
        for objects in query.resolve(&cluster).await?.complete()? {
            for name in &objects.names {
                let path = format!("{}/scale", objects.object_path(name)?);
                match self.one(&cluster, &path).await {
                    Ok(()) => println!("{} scaled", objects.kind.named(name)),
                    Err(error) => {
                        eprintln!("{}", failure::describe(&error));
                        failed = true;
                    }
                }
            }
        }
        if failed { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    async fn one(&self, cluster: &crate::cluster::Cluster, path: &str) -> anyhow::Result<()> {
        let mut patch = json!({"spec": {"replicas": self.replicas}});
        if let Some(expected) = self.current_replicas {
            let scale = cluster.get(path).await?;
            let current = scale["spec"]["replicas"].as_u64().unwrap_or_default();
            if current != u64::from(expected) {
                bail!("expected {expected} replicas, and there are {current}");
            }
            // Makes the check hold until the patch: another change meanwhile is a conflict.
            patch["metadata"] = json!({"resourceVersion": scale["metadata"]["resourceVersion"]});
        }
        cluster.patch(path, PatchType::Merge, &patch).await?;
        Ok(())
    }
}
