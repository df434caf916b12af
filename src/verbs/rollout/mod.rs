//! `fairlead rollout …`: how a Deployment gets from one template to the next.

mod history;
mod pause;
mod restart;
mod revisions;
mod status;
mod undo;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::objects::{ObjectQuery, WithoutNames};
use crate::{
    cluster::{Cluster, ResourceType},
    failure::ErrorWithHint,
};

/// Follow, repeat and undo rollouts
#[derive(Debug, clap::Subcommand)]
pub enum Rollout {
    Status(status::RolloutStatus),
    History(history::History),
    Undo(undo::Undo),
    Restart(restart::Restart),
    Pause(pause::Pause),
    Resume(pause::Resume),
}

impl Rollout {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Status(verb) => verb.run().await,
            Self::History(verb) => verb.run().await,
            Self::Undo(verb) => verb.run().await,
            Self::Restart(verb) => verb.run().await,
            Self::Pause(verb) => verb.run().await,
            Self::Resume(verb) => verb.run().await,
        }
    }
}

/// One Deployment that a word or two name.
struct Deployment {
    kind: ResourceType,
    name: String,
    path: String,
    object: Value,
}

impl Deployment {
    /// Reads the Deployments that `words` name: `deployment web`, `deployment/web deployment/api`.
    async fn all(cluster: &Cluster, words: &[String]) -> anyhow::Result<Vec<Self>> {
        let query = ObjectQuery { words, unnamed: WithoutNames::Refused, ..ObjectQuery::default() };
        let mut found = Vec::new();
        for objects in query.resolve(cluster).await?.complete()? {
            if objects.kind.kind != "Deployment" {
                let message = format!("{} have no rollouts", objects.kind.plural);
                return Err(ErrorWithHint::new(message, "deployments have: for instance deployment/web").into());
            }
            for name in &objects.names {
                let path = objects.object_path(name)?;
                let object = cluster.get(&path).await?;
                found.push(Self { kind: objects.kind.clone(), name: name.clone(), path, object });
            }
        }
        Ok(found)
    }

    async fn one(cluster: &Cluster, words: &[String]) -> anyhow::Result<Self> {
        let mut all = Self::all(cluster, words).await?;
        ensure!(all.len() == 1, "name exactly one deployment");
        all.pop().context("one was named")
    }

    fn shown(&self) -> String {
        self.kind.named(&self.name)
    }
}
