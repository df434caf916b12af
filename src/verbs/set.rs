//! `fairlead set image`: the images of the containers of a workload.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::objects::{ObjectQuery, WithoutNames};
use crate::cluster::{ConnectArgs, PatchType, connect, with_query};

/// Change a setting of a workload
#[derive(Debug, clap::Subcommand)]
pub enum Set {
    Image(SetImage),
}

impl Set {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Image(verb) => verb.run().await,
        }
    }
}

/// Change the images of a Deployment, ReplicaSet or Pod
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead set image deployment/web web=nginx:1.27
  fairlead set image deployment web web=nginx:1.27 sidecar=logger:2
  fairlead set image deploy/web '*=nginx:1.27'")]
pub struct SetImage {
    /// TYPE NAME or TYPE/NAME, then CONTAINER=IMAGE…; `*` for all containers
    #[arg(value_name = "RESOURCE|CONTAINER=IMAGE", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl SetImage {
    async fn run(self) -> anyhow::Result<()> {
        let first = self.words.iter().position(|word| word.contains('=')).unwrap_or(self.words.len());
        let (words, images) = self.words.split_at(first);
        ensure!(!images.is_empty(), "at least one CONTAINER=IMAGE is needed");
        let cluster = connect(&self.connect).await?;
        let query = ObjectQuery { words, unnamed: WithoutNames::Refused, ..ObjectQuery::default() };
        for objects in query.resolve(&cluster).await?.complete()? {
            for name in &objects.names {
                let path = objects.object_path(name)?;
                let object = cluster.get(&path).await?;
                let patch = patch(&object, images)?;
                cluster
                    .patch(&with_query(&path, &[("fieldManager", "fairlead")]), PatchType::Strategic, &patch)
                    .await?;
                println!("{} image updated", objects.kind.named(name));
            }
        }
        Ok(())
    }
}

/// The strategic merge patch that gives the named containers their images.
fn patch(object: &Value, images: &[String]) -> anyhow::Result<Value> {
    let is_pod = object["kind"] == "Pod";
    let spec = if is_pod { &object["spec"] } else { &object["spec"]["template"]["spec"] };
    let mut changed = json!({});
    for word in images {
        let (container, image) = word.split_once('=').with_context(|| format!("'{word}' is not CONTAINER=IMAGE"))?;
        let mut found = false;
        for field in ["containers", "initContainers"] {
            let names = spec[field].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str());
            for name in names.filter(|name| *name == container || container == "*") {
                found = true;
                if changed[field].is_null() {
                    changed[field] = json!([]);
                }
                if let Some(list) = changed[field].as_array_mut() {
                    list.push(json!({"name": name, "image": image}));
                }
            }
        }
        if !found {
            bail!("unable to find container named \"{container}\"");
        }
    }
    Ok(if is_pod { json!({"spec": changed}) } else { json!({"spec": {"template": {"spec": changed}}}) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_by_name_or_all_at_once() {
        let object = json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"name": "a"},
            {"name": "b"}]}}}});
        let of = |words: &[&str]| patch(&object, &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            of(&["b=x:1"]).expect("b is there"),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "x:1"}]}}}})
        );
        let all = of(&["*=x:1"]).expect("all are there");
        assert_eq!(all["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len), Some(2));
        assert!(of(&["c=x:1"]).is_err());
    }
}
