//! `fairlead label` and `fairlead annotate`: keys of an object's metadata, set, changed and removed.

use anyhow::{bail, ensure};
use serde_json::{Map, Value, json};

use super::objects::{ObjectQuery, Objects, WithoutNames};
use crate::{
    cluster::{Cluster, ConnectArgs, PatchType, connect, object_path, with_query},
    failure::{self, AlreadyReported, ErrorWithHint},
};

/// Set, change or remove labels
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead label pod web-1 tier=front
  fairlead label node b disk=ssd --overwrite
  fairlead label pods --all tier-                 # removes it")]
pub struct Label {
    #[command(flatten)]
    change: ChangeArgs,
}

impl Label {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        self.change.run("labels", "labeled").await
    }
}

/// Set, change or remove annotations
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead annotate deployment web owner=team-a
  fairlead annotate deployment web owner-         # removes it")]
pub struct Annotate {
    #[command(flatten)]
    change: ChangeArgs,
}

impl Annotate {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        self.change.run("annotations", "annotated").await
    }
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// TYPE NAME… or TYPE/NAME…, then KEY=VALUE to set and KEY- to remove
    #[arg(value_name = "RESOURCE|KEY=VALUE|KEY-", required = true)]
    words: Vec<String>,
    /// Change keys that have another value already
    #[arg(long)]
    overwrite: bool,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// The objects whose labels match
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl ChangeArgs {
    async fn run(self, field: &str, done: &str) -> anyhow::Result<()> {
        let (words, changes) = split(&self.words)?;
        let cluster = connect(&self.connect).await?;
        let mut failed = false;
        let query = ObjectQuery {
            words: &words,
            all: self.all,
            label_selector: self.selector.as_deref(),
            unnamed: WithoutNames::OnlySelected,
            ..ObjectQuery::default()
        };
        for objects in query.resolve(&cluster).await?.complete()? {
            for object in read(&cluster, &objects).await? {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                let path = object_path(&objects.kind, namespace, name)?;
                match self.change(&cluster, &path, field, &object, &changes).await {
                    Ok(true) => println!("{} {done}", objects.kind.named(name)),
                    Ok(false) => println!("{} not {done}", objects.kind.named(name)),
                    Err(error) => {
                        eprintln!("{}", failure::describe(&error));
                        failed = true;
                    }
                }
            }
        }
        if failed { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    /// Returns whether anything had to be changed.
    async fn change(
        &self,
        cluster: &Cluster,
        path: &str,
        field: &str,
        object: &Value,
        changes: &Map<String, Value>,
    ) -> anyhow::Result<bool> {
        let current = &object["metadata"][field];
        for (key, value) in changes {
            if let (Some(old), Some(new)) = (current[key].as_str(), value.as_str())
                && old != new
                && !self.overwrite
            {
                return Err(ErrorWithHint::new(
                    format!("'{key}' already has a value ({old})"),
                    "--overwrite changes it",
                )
                .into());
            }
        }
        let needed: Map<String, Value> = changes
            .iter()
            .filter(|(key, value)| current[key.as_str()] != **value)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if needed.is_empty() {
            return Ok(false);
        }
        let patch = json!({"metadata": {field: needed}});
        cluster.patch(&with_query(path, &[("fieldManager", "fairlead")]), PatchType::Merge, &patch).await?;
        Ok(true)
    }
}

/// The objects as they are now.
async fn read(cluster: &Cluster, objects: &Objects) -> anyhow::Result<Vec<Value>> {
    if objects.names.is_empty() {
        return objects.list(cluster).await;
    }
    let mut found = Vec::new();
    for name in &objects.names {
        found.push(cluster.get(&objects.object_path(name)?).await?);
    }
    Ok(found)
}

/// The words that name objects, and the changes: `null` for a key to remove.
fn split(words: &[String]) -> anyhow::Result<(Vec<String>, Map<String, Value>)> {
    let is_change = |word: &String| word.contains('=') || word.ends_with('-');
    let first = words.iter().position(is_change).unwrap_or(words.len());
    let mut changes = Map::new();
    for word in &words[first..] {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, json!(value)),
            (None, Some(key)) => (key, Value::Null),
            (None, None) => bail!("'{word}' is neither KEY=VALUE nor KEY-"),
        };
        ensure!(changes.insert(key.to_owned(), value).is_none(), "'{key}' is given twice");
    }
    ensure!(!changes.is_empty(), "at least one KEY=VALUE or KEY- is needed");
    Ok((words[..first].to_vec(), changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_changes() {
        let words: Vec<String> = ["pod", "a", "b", "x=1", "y-"].map(str::to_owned).to_vec();
        let (objects, changes) = split(&words).expect("valid");
        assert_eq!(objects, ["pod", "a", "b"]);
        assert_eq!(Value::Object(changes), json!({"x": "1", "y": null}));
        assert!(split(&words[..3]).is_err());
    }
}
