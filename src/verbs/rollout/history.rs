//! `fairlead rollout history`

use anyhow::Context;

use super::{Deployment, revisions::revisions};
use crate::{
    cluster::{ConnectArgs, connect},
    output::Grid,
    yaml,
};

/// List a Deployment's revisions, or show one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead rollout history deployment/web
  fairlead rollout history deployment/web --revision=2")]
pub struct History {
    /// TYPE NAME, or TYPE/NAME
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    /// Show the pod template of this revision
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl History {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let deployment = Deployment::one(&cluster, &self.resource).await?;
        let revisions = revisions(&cluster, &deployment).await?;
        if let Some(number) = self.revision {
            let revision = revisions.iter().find(|r| r.number == number);
            let revision = revision.with_context(|| format!("unable to find the specified revision {number}"))?;
            println!("{} with revision #{number}", deployment.shown());
            print!("{}", yaml::write(&serde_json::json!({"template": revision.template}))?);
            return Ok(());
        }
        println!("{} ", deployment.shown());
        let mut grid = Grid::default();
        grid.row(["REVISION", "CHANGE-CAUSE"]);
        for revision in revisions {
            grid.row([revision.number.to_string(), revision.change_cause]);
        }
        print!("{}", grid.render());
        Ok(())
    }
}
