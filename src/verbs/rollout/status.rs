//! `fairlead rollout status`: reports the progress of a rollout, and waits until it is complete.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use super::Deployment;
use crate::cluster::{Cluster, ConnectArgs, connect, until};

/// Wait until a rollout is done, saying how far it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead rollout status deployment/web
  fairlead rollout status deployment web --timeout=90s
  fairlead rollout status deploy/web --watch=false")]
pub struct RolloutStatus {
    /// TYPE NAME, or TYPE/NAME
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    /// Wait until it is done; =false only looks once
    #[arg(short, long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    watch: bool,
    /// How long to wait, such as 90s; 0 for as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = crate::role::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// How far a rollout is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Waiting(String),
    Done(String),
    Failed(String),
}

impl RolloutStatus {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        for deployment in Deployment::all(&cluster, &self.resource).await? {
            let follow = follow(&cluster, &deployment, self.watch);
            if self.timeout.is_zero() {
                follow.await?;
            } else {
                let timely = tokio::time::timeout(self.timeout, follow).await;
                timely
                    .map_err(|_| anyhow::anyhow!("timed out waiting for the rollout of {}", deployment.shown()))??;
            }
        }
        Ok(())
    }
}

async fn follow(cluster: &Cluster, deployment: &Deployment, watch: bool) -> anyhow::Result<()> {
    let mut printed = String::new();
    let Deployment { kind, name, object, .. } = deployment;
    if !watch {
        return print_progress(&progress(object), &mut printed).map(drop);
    }
    until(cluster, kind, cluster.namespace(), name, |object| match object {
        Some(object) => Ok(print_progress(&progress(object), &mut printed)?.then_some(())),
        None => bail!("{} is gone", deployment.shown()),
    })
    .await
}

/// Prints the progress where it differs from what was `printed` last. Returns whether the rollout is done.
fn print_progress(progress: &Progress, printed: &mut String) -> anyhow::Result<bool> {
    let (text, done) = match progress {
        Progress::Failed(why) => bail!("{why}"),
        Progress::Waiting(text) => (text, false),
        Progress::Done(text) => (text, true),
    };
    if text != printed {
        println!("{text}");
        printed.clone_from(text);
    }
    Ok(done)
}

/// kubectl's `DeploymentStatusViewer`, word for word.
fn progress(deployment: &Value) -> Progress {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let count = |field: &str| status[field].as_u64().unwrap_or_default();
    if deployment["metadata"]["generation"].as_u64() > status["observedGeneration"].as_u64() {
        return Progress::Waiting("Waiting for deployment spec update to be observed...".into());
    }
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if conditions.iter().any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded") {
        return Progress::Failed(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    let wanted = spec["replicas"].as_u64().unwrap_or(1);
    let (replicas, updated, available) = (count("replicas"), count("updatedReplicas"), count("availableReplicas"));
    let waiting =
        |what: String| Progress::Waiting(format!("Waiting for deployment \"{name}\" rollout to finish: {what}..."));
    if updated < wanted {
        waiting(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if replicas > updated {
        waiting(format!("{} old replicas are pending termination", replicas - updated))
    } else if available < updated {
        waiting(format!("{available} of {updated} updated replicas are available"))
    } else {
        Progress::Done(format!("deployment \"{name}\" successfully rolled out"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status})
    }

    #[test]
    fn a_rollout_is_told_from_its_first_to_its_last_step() {
        let waiting = |text: &str| Progress::Waiting(text.to_owned());
        let of = |status| progress(&deployment(status));
        assert_eq!(
            of(json!({"observedGeneration": 1})),
            waiting("Waiting for deployment spec update to be observed...")
        );
        assert_eq!(
            of(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1})),
            waiting("Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...")
        );
        assert_eq!(
            of(json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3})),
            waiting("Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...")
        );
        assert_eq!(
            of(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2})),
            waiting("Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...")
        );
        assert_eq!(
            of(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3})),
            Progress::Done("deployment \"web\" successfully rolled out".into())
        );
    }

    #[test]
    fn a_rollout_that_is_stuck_fails() {
        let status = json!({"observedGeneration": 2, "conditions": [{"type": "Progressing",
            "reason": "ProgressDeadlineExceeded"}]});
        assert!(matches!(progress(&deployment(status)), Progress::Failed(_)));
    }
}
