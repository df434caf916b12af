//! `fairlead wait`: until objects have a condition, a value, or are gone.

use std::{str::FromStr, time::Duration};

use anyhow::{bail, ensure};
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::Value;

use crate::{
    cluster::{Cluster, ConnectArgs, ResourceType, connect, resource_path, select, with_query},
    output::jsonpath::{Template, text_of},
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
    /// How long to wait for each
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

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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
        Err("one of condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], delete".into())
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
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let mut all = Vec::new();
        for selection in select(cluster.resources().await?, &self.resources)? {
            let mut names = selection.names.clone();
            if names.is_empty() {
                ensure!(self.all || self.selector.is_some(), "name objects, or use -l or --all");
                names = self.matching(&cluster, &selection.kind).await?;
            }
            all.extend(names.into_iter().map(|name| (selection.kind.clone(), name)));
        }
        ensure!(!all.is_empty(), "no matching resources found");
        for (kind, name) in &all {
            let timely = tokio::time::timeout(self.timeout, self.one(&cluster, kind, name)).await;
            timely.map_err(|_| anyhow::anyhow!("timed out waiting for {}", kind.named(name)))??;
            let met = if matches!(self.r#for, Goal::Delete) { "deleted" } else { "condition met" };
            println!("{} {met}", kind.named(name));
        }
        Ok(())
    }

    async fn matching(&self, cluster: &Cluster, kind: &ResourceType) -> anyhow::Result<Vec<String>> {
        let query: Vec<(&str, &str)> = self.selector.iter().map(|s| ("labelSelector", s.as_str())).collect();
        let list = cluster.get(&with_query(&resource_path(kind, Some(cluster.namespace())), &query)).await?;
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(items.iter().filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    async fn one(&self, cluster: &Cluster, kind: &ResourceType, name: &str) -> anyhow::Result<()> {
        let field = format!("metadata.name={name}");
        let list = resource_path(kind, Some(cluster.namespace()));
        let delete = matches!(self.r#for, Goal::Delete);
        loop {
            let found = cluster.get(&with_query(&list, &[("fieldSelector", &field)])).await?;
            match found["items"].get(0) {
                None if delete => return Ok(()),
                None => bail!("{} not found", kind.named(name)),
                Some(object) if self.r#for.is_met(object) => return Ok(()),
                Some(_) => {}
            }
            let revision = found["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let query = [("fieldSelector", field.as_str()), ("watch", "true"), ("resourceVersion", revision)];
            let mut lines = cluster.stream(&with_query(&list, &query), "application/json").await?.lines();
            while let Some(line) = lines.next().await {
                let event: Value = serde_json::from_str(&line?)?;
                match event["type"].as_str() {
                    Some("DELETED") if delete => return Ok(()),
                    Some("DELETED") => bail!("{} was deleted", kind.named(name)),
                    // The revision is too old by now: look again.
                    Some("ERROR") => break,
                    _ if self.r#for.is_met(&event["object"]) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
}
