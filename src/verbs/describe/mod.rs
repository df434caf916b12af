//! `fairlead describe`: one object for people to read, with what belongs to it and what has happened to it.

mod endpoints;
mod events;
mod generic;
mod metadata;
mod node;
mod page;
mod pod;
mod pod_template;
mod service;
mod workload;

use serde_json::Value;

use super::objects::{ObjectQuery, Objects};
use crate::{
    cluster::{Cluster, ConnectArgs, ResourceType, connect, field_equals, resource_path, with_query},
    failure::{self, AlreadyReported},
    manifest::FileArgs,
    printable::printable,
};
use page::Page;

/// Show objects in full, with what belongs to them and their events
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead describe pod web-1
  fairlead describe deployment/web service/web
  fairlead describe pods -l app=web
  fairlead describe node b")]
pub struct Describe {
    /// TYPE, TYPE NAME…, or TYPE/NAME…; part of a name does too
    #[arg(value_name = "RESOURCE")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects whose labels match
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// With the events, which takes one more request an object
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    show_events: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Describe {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let found = self.query().resolve(&cluster).await?;
        for problem in &found.problems {
            eprintln!("{}", failure::describe(problem));
        }
        let (mut failed, mut shown) = (!found.problems.is_empty(), 0);
        for objects in &found.objects {
            let mut described = Vec::new();
            if objects.names.is_empty() {
                described = objects.list(&cluster).await?;
            }
            for name in &objects.names {
                match self.named(&cluster, objects, name).await {
                    Ok(found) => described.extend(found),
                    Err(error) => {
                        eprintln!("{}", failure::describe(&error));
                        failed = true;
                    }
                }
            }
            for object in described {
                if shown > 0 {
                    print!("\n\n");
                }
                shown += 1;
                print!("{}", printable(&self.text(&cluster, &objects.kind, &object).await?));
            }
        }
        if shown == 0 && !failed {
            match self.all_namespaces {
                true => eprintln!("No resources found"),
                false => eprintln!("No resources found in {} namespace.", cluster.namespace()),
            }
        }
        if failed { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    fn query(&self) -> ObjectQuery<'_> {
        ObjectQuery {
            words: &self.resources,
            files: Some(&self.files),
            all_namespaces: self.all_namespaces,
            label_selector: self.selector.as_deref(),
            ..ObjectQuery::default()
        }
    }

    /// The object `name`, else all whose names begin with it; for a manifest only the object itself.
    async fn named(&self, cluster: &Cluster, objects: &Objects, name: &str) -> anyhow::Result<Vec<Value>> {
        let error = match cluster.get(&objects.object_path(name)?).await {
            Ok(object) => return Ok(vec![object]),
            Err(error) if !self.files.filename.is_empty() => return Err(error),
            Err(error) => error,
        };
        let mut similar = objects.list(cluster).await?;
        similar.retain(|object| object["metadata"]["name"].as_str().is_some_and(|known| known.starts_with(name)));
        if similar.is_empty() { Err(error) } else { Ok(similar) }
    }

    async fn text(&self, cluster: &Cluster, kind: &ResourceType, object: &Value) -> anyhow::Result<String> {
        let mut page = Page::default();
        match kind.kind.as_str() {
            "Pod" => pod::describe(&mut page, object),
            "Service" => {
                let slices = cluster.resources().await?.resolve("endpointslices");
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let namespace = object["metadata"]["namespace"].as_str();
                let slices = match slices {
                    Ok(slices) => {
                        let selector = format!("kubernetes.io/service-name={name}");
                        let path = with_query(&resource_path(slices, namespace), &[("labelSelector", &selector)]);
                        items(cluster, &path).await?
                    }
                    Err(_) => Vec::new(),
                };
                service::describe(&mut page, object, &slices);
            }
            "Deployment" => {
                let sets = owned(cluster, "replicasets.apps", object).await?;
                workload::deployment(&mut page, object, &sets);
            }
            "ReplicaSet" => {
                let pods = owned(cluster, "pods", object).await?;
                workload::replica_set(&mut page, object, &pods);
            }
            "Node" => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let field = field_equals("spec.nodeName", name);
                let pods = cluster.resources().await?.resolve("pods")?;
                let path = with_query(&resource_path(pods, None), &[("fieldSelector", &field)]);
                node::describe(&mut page, object, &items(cluster, &path).await?);
            }
            "Endpoints" => endpoints::describe(&mut page, object),
            "Secret" => generic::secret(&mut page, object),
            _ => generic::describe(&mut page, object),
        }
        if self.show_events {
            events::describe(&mut page, &events::of(cluster, kind, object).await?);
        }
        Ok(page.render())
    }
}

/// The items of a list.
async fn items(cluster: &Cluster, path: &str) -> anyhow::Result<Vec<Value>> {
    match cluster.get(path).await?["items"].take() {
        Value::Array(items) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

/// The objects of a type that `owner` controls.
async fn owned(cluster: &Cluster, word: &str, owner: &Value) -> anyhow::Result<Vec<Value>> {
    let kind = cluster.resources().await?.resolve(word)?;
    let selector = super::logs::label_selector(&owner["spec"]["selector"]).unwrap_or_default();
    let path = resource_path(kind, owner["metadata"]["namespace"].as_str());
    let mut found = items(cluster, &with_query(&path, &[("labelSelector", &selector)])).await?;
    found.retain(|object| {
        let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.into_iter().any(|reference| reference["uid"] == owner["metadata"]["uid"])
    });
    Ok(found)
}
