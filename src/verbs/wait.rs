//! `fairlead wait`: until objects have a condition, a value, or are gone.

use std::{str::FromStr, time::Duration};

use anyhow::ensure;
use serde_json::Value;

use super::objects::{ObjectQuery, WithoutNames};
use crate::{
    cluster::{ApiError, Cluster, ConnectArgs, ResourceType, connect, object_path, until},
    output::jsonpath::{Template, TemplateError, text_of},
};

/// Wait until objects have a condition, a value, or are gone
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead wait --for=condition=Available deployment/web
  fairlead wait --for=condition=Ready pod -l app=web --timeout=60s
  fairlead wait --for=jsonpath='{.status.phase}'=Running pod/once
  fairlead wait --for=delete pod/web-1")]
pub struct Wait {
    /// TYPE NAME…, TYPE/NAME…, or TYPE with -l or --all
    #[arg(value_name = "RESOURCE", required = true)]
    resources: Vec<String>,
    /// condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], or delete
    #[arg(long, value_name = "WHAT")]
    r#for: Goal,
    /// The objects whose labels match
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// How long to wait for each; 0 looks once
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::role::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What is waited for.
#[derive(Clone, Debug)]
enum Goal {
    Condition { name: String, value: String },
    Path { path: Template, value: Option<String> },
    Delete,
}

/// Why a text names no goal. clap puts the flag and the value before it.
#[derive(Debug, thiserror::Error)]
enum GoalError {
    #[error("one of condition=NAME[=VALUE], jsonpath={{PATH}}[=VALUE], delete")]
    Unknown,
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl FromStr for Goal {
    type Err = GoalError;

    fn from_str(text: &str) -> Result<Self, GoalError> {
        if text == "delete" {
            return Ok(Self::Delete);
        }
        if let Some(rest) = text.strip_prefix("condition=") {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "True"));
            return Ok(Self::Condition { name: name.to_owned(), value: value.to_owned() });
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let end = rest.rfind('}').map_or(rest.len(), |i| i + 1);
            let value = rest[end..].strip_prefix('=').map(str::to_owned);
            return Ok(Self::Path { path: rest[..end].parse()?, value });
        }
        Err(GoalError::Unknown)
    }
}

impl Goal {
    fn is_met(&self, object: &Value) -> bool {
        match self {
            Self::Delete => false,
            Self::Condition { name, value } => {
                let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                let matches = |c: &Value| {
                    let same =
                        |field: &str, wanted: &str| c[field].as_str().is_some_and(|is| is.eq_ignore_ascii_case(wanted));
                    same("type", name) && same("status", value)
                };
                conditions.into_iter().any(matches)
            }
            Self::Path { path, value } => {
                let found = path.values(object);
                match value {
                    Some(wanted) => found.iter().any(|value| text_of(value) == *wanted),
                    None => !found.is_empty(),
                }
            }
        }
    }
}

impl Wait {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        self.wait(&connect(&self.connect).await?).await
    }

    async fn wait(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let query = ObjectQuery {
            words: &self.resources,
            all: self.all,
            label_selector: self.selector.as_deref(),
            unnamed: WithoutNames::OnlySelected,
            ..ObjectQuery::default()
        };
        let mut all = Vec::new();
        for objects in query.resolve(cluster).await?.complete()? {
            let mut names = objects.names.clone();
            if names.is_empty() {
                let listed = objects.list(cluster).await?;
                names = listed.iter().filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect();
            }
            all.extend(names.into_iter().map(|name| (objects.kind.clone(), name)));
        }
        ensure!(!all.is_empty(), "no matching resources found");
        for (kind, name) in &all {
            if self.timeout.is_zero() {
                let met = self.is_met(kind, name, self.get(cluster, kind, name).await?.as_ref())?;
                ensure!(met.is_some(), "timed out waiting for {}", kind.named(name));
            } else {
                let met = until(cluster, kind, cluster.namespace(), name, |object| self.is_met(kind, name, object));
                let timely = tokio::time::timeout(self.timeout, met).await;
                timely.map_err(|_| anyhow::anyhow!("timed out waiting for {}", kind.named(name)))??;
            }
            let met = if matches!(self.r#for, Goal::Delete) { "deleted" } else { "condition met" };
            println!("{} {met}", kind.named(name));
        }
        Ok(())
    }

    /// The object as it is now, or `None`.
    async fn get(&self, cluster: &Cluster, kind: &ResourceType, name: &str) -> anyhow::Result<Option<Value>> {
        match cluster.get(&object_path(kind, cluster.namespace(), name)?).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.downcast_ref::<ApiError>().is_some_and(ApiError::is_not_found) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the goal is reached; an error where it cannot be any more.
    fn is_met(&self, kind: &ResourceType, name: &str, object: Option<&Value>) -> anyhow::Result<Option<()>> {
        match (object, &self.r#for) {
            (None, Goal::Delete) => Ok(Some(())),
            (None, _) => Err(ApiError::not_found(kind, name).into()),
            (Some(object), goal) => Ok(goal.is_met(object).then_some(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::fake::{Answer, FakeServer};

    #[test]
    fn goals_are_read_and_met() {
        let object = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        for (goal, met) in [
            ("condition=Ready", true),
            ("condition=ready=true", true),
            ("condition=Ready=False", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath={.status.phase}=Pending", false),
            ("jsonpath={.status.podIP}", false),
            ("delete", false),
        ] {
            assert_eq!(goal.parse::<Goal>().expect(goal).is_met(&object), met, "{goal}");
        }
        assert!("ready".parse::<Goal>().is_err());
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        wait: Wait,
    }

    fn parse(words: &[&str]) -> Wait {
        <Line as clap::Parser>::parse_from(std::iter::once("wait").chain(words.iter().copied())).wait
    }

    fn pod(phase: &str, revision: &str) -> Value {
        json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "default", "resourceVersion": revision},
            "status": {"phase": phase}})
    }

    #[tokio::test]
    async fn a_broken_stream_does_not_end_the_wait() {
        let server = FakeServer::new([
            Answer::json(
                &json!({"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [pod("Pending", "1")]}),
            ),
            Answer::broken(&[json!({"type": "MODIFIED", "object": pod("Pending", "2")})]),
            Answer::events(&[json!({"type": "MODIFIED", "object": pod("Running", "3")})]),
        ]);
        let wait = parse(&["--for=jsonpath={.status.phase}=Running", "pod/a", "--timeout=18446744073709551615"]);
        wait.wait(&server.cluster("default")).await.expect("it runs");
    }

    #[tokio::test]
    async fn a_timeout_of_zero_looks_once() {
        let goal = "--for=jsonpath={.status.phase}=Running";
        for (phase, met) in [("Running", true), ("Pending", false)] {
            let server = FakeServer::new([Answer::json(&pod(phase, "1"))]);
            let outcome = parse(&[goal, "pod/a", "--timeout=0"]).wait(&server.cluster("default")).await;
            assert_eq!(outcome.is_ok(), met, "{phase}");
        }
    }
}
