//! `fairlead rollout undo`

use anyhow::{Context, bail};
use serde_json::json;

use super::{Deployment, revisions::revisions};
use crate::{
    cluster::{ConnectArgs, PatchType, connect, with_query},
    failure::ErrorWithHint,
};

/// Go back to an earlier revision
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead rollout undo deployment/web
  fairlead rollout undo deployment/web --to-revision=2")]
pub struct Undo {
    /// TYPE NAME, or TYPE/NAME
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    /// The revision to go back to [default: the one before]
    #[arg(long, value_name = "NUMBER", default_value = "0", hide_default_value = true)]
    to_revision: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Undo {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let deployment = Deployment::one(&cluster, &self.resource).await?;
        if deployment.object["spec"]["paused"] == true {
            return Err(ErrorWithHint::new(
                format!("{} is paused, and a paused deployment cannot be rolled back", deployment.shown()),
                format!("first: fairlead rollout resume deployment/{}", deployment.name),
            )
            .into());
        }
        let revisions = revisions(&cluster, &deployment).await?;
        let target = match self.to_revision {
            0 if revisions.len() < 2 => bail!("no rollout history found for {}", deployment.shown()),
            0 => &revisions[revisions.len() - 2],
            number => revisions.iter().find(|r| r.number == number).with_context(|| {
                format!("unable to find the specified revision {number} in the history of {}", deployment.shown())
            })?,
        };
        if target.template == deployment.object["spec"]["template"] {
            println!(
                "{} skipped rollback (current template already matches revision {})",
                deployment.shown(),
                target.number
            );
            return Ok(());
        }
        // The test makes a change of the template that came between a refusal, not a loss.
        let patch = json!([
            {"op": "test", "path": "/spec/template", "value": deployment.object["spec"]["template"]},
            {"op": "replace", "path": "/spec/template", "value": target.template}]);
        cluster.patch(&with_query(&deployment.path, &[("fieldManager", "fairlead")]), PatchType::Json, &patch).await?;
        println!("{} rolled back", deployment.shown());
        Ok(())
    }
}
