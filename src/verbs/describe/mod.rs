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

use anyhow::bail;
use serde_json::Value;

use crate::{
    cluster::{Cluster, ConnectArgs, ResourceType, connect, object_path, resource_path, select, with_query},
    failure::{self, AlreadyReported},
    manifest::{self, FileArgs},
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
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_events: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Describe {
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let mut words = self.resources.clone();
        for document in manifest::read(&self.files)? {
            let manifest = document?;
            let target = super::target(&cluster, &manifest).await?;
            words.push(format!("{}/{}", target.kind.qualified_plural(), manifest.name()));
        }
        let (mut failed, mut shown) = (false, 0);
        for selection in select(cluster.resources().await?, &words)? {
            let mut objects = Vec::new();
            if selection.names.is_empty() {
                objects = self.list(&cluster, &selection.kind).await?;
            }
            for name in &selection.names {
                match self.named(&cluster, &selection.kind, name).await {
                    Ok(found) => objects.extend(found),
                    Err(error) => {
                        eprintln!("{}", failure::describe(&error));
                        failed = true;
                    }
                }
            }
            for object in objects {
                if shown > 0 {
                    print!("\n\n");
                }
                shown += 1;
                print!("{}", self.text(&cluster, &selection.kind, &object).await?);
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

    async fn list(&self, cluster: &Cluster, kind: &ResourceType) -> anyhow::Result<Vec<Value>> {
        let namespace = (!self.all_namespaces).then(|| cluster.namespace());
        let query: Vec<(&str, &str)> = self.selector.iter().map(|s| ("labelSelector", s.as_str())).collect();
        items(cluster, &with_query(&resource_path(kind, namespace), &query)).await
    }

    /// The object of that name, else all whose names begin so.
    async fn named(&self, cluster: &Cluster, kind: &ResourceType, name: &str) -> anyhow::Result<Vec<Value>> {
        if self.selector.is_some() || self.all_namespaces {
            bail!("a resource cannot be retrieved by name with a selector or across all namespaces");
        }
        let error = match cluster.get(&object_path(kind, cluster.namespace(), name)).await {
            Ok(object) => return Ok(vec![object]),
            Err(error) => error,
        };
        let mut similar = self.list(cluster, kind).await?;
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
                let field = format!("spec.nodeName={name}");
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
