//! `fairlead label` and `fairlead annotate`: keys of an object's metadata, set, changed and removed.

use anyhow::{bail, ensure};
use serde_json::{Map, Value, json};

use crate::{
    cluster::{Cluster, ConnectArgs, PatchType, Selection, connect, object_path, resource_path, select, with_query},
    failure::{self, AlreadyReported, Hinted},
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
        for selection in select(cluster.resources().await?, &words)? {
            for object in self.objects(&cluster, &selection).await? {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                let path = object_path(&selection.kind, namespace, name);
                match self.change(&cluster, &path, field, &object, &changes).await {
                    Ok(true) => println!("{} {done}", selection.kind.named(name)),
                    Ok(false) => println!("{} not {done}", selection.kind.named(name)),
                    Err(error) => {
                        eprintln!("{}", failure::describe(&error));
                        failed = true;
                    }
                }
            }
        }
        if failed { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    async fn objects(&self, cluster: &Cluster, selection: &Selection) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        for name in &selection.names {
            found.push(cluster.get(&object_path(&selection.kind, cluster.namespace(), name)).await?);
        }
        if !selection.names.is_empty() {
            return Ok(found);
        }
        ensure!(self.all || self.selector.is_some(), "name objects, or use -l or --all");
        let query: Vec<(&str, &str)> = self.selector.iter().map(|s| ("labelSelector", s.as_str())).collect();
        let list = with_query(&resource_path(&selection.kind, Some(cluster.namespace())), &query);
        match cluster.get(&list).await?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// Gives whether anything had to be changed.
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
                return Err(
                    Hinted::new(format!("'{key}' already has a value ({old})"), "--overwrite changes it").into()
                );
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
