//! Objects that the CLI itself writes (`run`, `expose`, `create …`): shown or sent, with the same flags everywhere.

use serde_json::{Value, json};

use super::apply::DryRun;
use crate::{
    cluster::{Cluster, ConnectArgs, connect, resource_path, with_query},
    failure::ErrorWithHint,
    output::{self, Format},
};

/// Flags of verbs that make an object from their words.
#[derive(Clone, Debug, clap::Args)]
pub struct SubmitArgs {
    /// Only say what would be done: with `-o yaml`, print the object to keep it in a file
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "client")]
    pub dry_run: DryRun,
    /// Print the object: json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl SubmitArgs {
    /// Opens the cluster that the flags name.
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        connect(&self.connect).await
    }

    /// Creates `object` and says that it was `done` (`created`, `exposed`).
    pub async fn submit(&self, cluster: &Cluster, mut object: Value, done: &str) -> anyhow::Result<()> {
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let resources = cluster.resources().await?;
        let Some(resource) = resources.by_kind(&api_version, &kind) else {
            return Err(ErrorWithHint::new(
                format!("the server has no {kind} in {api_version}"),
                "is it an older cluster?",
            )
            .into());
        };
        if resource.namespaced && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!(cluster.namespace());
        }
        let path = resource_path(resource, Some(cluster.namespace()));
        let made = match self.dry_run {
            DryRun::Client => object,
            _ => cluster.post(&with_query(&path, &self.dry_run.query()), &object).await?,
        };
        let name = resource.named(&text(&made["metadata"]["name"]));
        match &self.output {
            Some(format) => output::print_object(format, &made, &name),
            None => {
                println!("{name} {done}{}", self.dry_run.suffix());
                Ok(())
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A part between commas without `=`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not KEY=VALUE")]
pub struct NotAPair(String);

/// `a=1,b=2` as a map; for labels, selectors and literals.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, NotAPair> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| NotAPair(pair.to_owned()))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The pairs as a JSON map.
pub fn map(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect())
}
