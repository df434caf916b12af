//! `fairlead delete`: removes objects, and by default waits until they are gone.

use std::time::Duration;

use anyhow::bail;
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::{Value, json};

use super::apply::DryRun;
use crate::{
    cluster::{ApiError, Cluster, ConnectArgs, ResourceType, connect, object_path, resource_path, select, with_query},
    failure::{self, AlreadyReported},
    manifest::{self, FileArgs},
};

/// Delete objects and wait until they are gone
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead delete -f web.yaml
  fairlead delete deployment web
  fairlead delete pods -l app=web
  fairlead delete pod stuck --grace-period=0 --force
  fairlead delete deployment web --cascade=orphan")]
pub struct Delete {
    /// TYPE NAME…, TYPE/NAME…, or TYPE with -l or --all
    #[arg(value_name = "RESOURCE")]
    pub resources: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Delete all objects of the type in the namespace
    #[arg(long)]
    pub all: bool,
    /// In all namespaces, with -l or --all
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Delete the objects whose labels match
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Delete the objects whose fields match
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
    /// Seconds that a pod has to end; 0 only with --force
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub grace_period: Option<i64>,
    /// End pods at once, without waiting for their node to confirm
    #[arg(long)]
    pub force: bool,
    /// End pods with a grace period of one second
    #[arg(long)]
    pub now: bool,
    /// Wait until the objects are gone
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub wait: bool,
    /// How long to wait, such as 30s or 5m; 0 for as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = crate::role::parse_duration)]
    pub timeout: Duration,
    /// What becomes of dependents: background, foreground or orphan
    #[arg(long, value_name = "HOW", default_value = "background", num_args = 0..=1, require_equals = true, default_missing_value = "background")]
    pub cascade: Cascade,
    /// No error when a named object is not there
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Only say what would be done
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
    /// Print only names: `-o name`
    #[arg(short, long, value_name = "FORMAT", value_parser = ["name"])]
    pub output: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cascade {
    #[value(alias = "true")]
    Background,
    Foreground,
    #[value(alias = "false")]
    Orphan,
}

/// One object to delete.
struct Victim {
    kind: ResourceType,
    namespace: String,
    name: String,
}

impl Delete {
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let mut failed = false;
        let victims = self.victims(&cluster, &mut failed).await?;
        if victims.is_empty() && !failed {
            if !self.ignore_not_found {
                eprintln!("No resources found");
            }
            return Ok(());
        }
        let mut waiting = Vec::new();
        for victim in victims {
            match self.one(&cluster, &victim).await {
                Ok(Some(uid)) => waiting.push((victim, uid)),
                Ok(None) => {}
                Err(error) => {
                    eprintln!("{}", failure::describe(&error));
                    failed = true;
                }
            }
        }
        if self.wait && self.dry_run == DryRun::None {
            let all_gone = async {
                for (victim, uid) in &waiting {
                    gone(&cluster, victim, uid).await?;
                }
                anyhow::Ok(())
            };
            if self.timeout.is_zero() {
                all_gone.await?;
            } else {
                let timely = tokio::time::timeout(self.timeout, all_gone).await;
                timely.map_err(|_| anyhow::anyhow!("timed out waiting for the objects to be gone"))??;
            }
        }
        if failed { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    async fn victims(&self, cluster: &Cluster, failed: &mut bool) -> anyhow::Result<Vec<Victim>> {
        let mut victims = Vec::new();
        if !self.files.filename.is_empty() {
            for document in manifest::read(&self.files)? {
                let found = match document {
                    Ok(manifest) => super::target(cluster, &manifest).await.map(|target| Victim {
                        kind: target.kind,
                        namespace: target.namespace,
                        name: manifest.name().to_owned(),
                    }),
                    Err(problem) => Err(problem.into()),
                };
                match found {
                    Ok(victim) => victims.push(victim),
                    Err(error) => {
                        eprintln!("{}", failure::describe(&error));
                        *failed = true;
                    }
                }
            }
            return Ok(victims);
        }
        let by_selector = self.all || self.selector.is_some() || self.field_selector.is_some();
        for selection in select(cluster.resources().await?, &self.resources)? {
            match (selection.names.is_empty(), by_selector) {
                (true, false) => {
                    bail!("resource(s) were provided, but no name was specified; name objects, or use -l or --all")
                }
                (false, true) => bail!("name cannot be provided when a selector or --all is specified"),
                (false, false) => victims.extend(selection.names.iter().map(|name| Victim {
                    kind: selection.kind.clone(),
                    namespace: cluster.namespace().to_owned(),
                    name: name.clone(),
                })),
                (true, true) => victims.extend(self.matching(cluster, &selection.kind).await?),
            }
        }
        Ok(victims)
    }

    async fn matching(&self, cluster: &Cluster, kind: &ResourceType) -> anyhow::Result<Vec<Victim>> {
        let namespace = (!self.all_namespaces).then(|| cluster.namespace());
        let mut query = Vec::new();
        query.extend(self.selector.as_deref().map(|s| ("labelSelector", s)));
        query.extend(self.field_selector.as_deref().map(|s| ("fieldSelector", s)));
        let list = cluster.get(&with_query(&resource_path(kind, namespace), &query)).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(items
            .iter()
            .map(|item| Victim {
                kind: kind.clone(),
                namespace: text(&item["metadata"]["namespace"]),
                name: text(&item["metadata"]["name"]),
            })
            .collect())
    }

    /// Asks for the deletion. Gives the uid of an object that is not gone yet.
    async fn one(&self, cluster: &Cluster, victim: &Victim) -> anyhow::Result<Option<String>> {
        let path = object_path(&victim.kind, &victim.namespace, &victim.name);
        let shown = format!("{} \"{}\"", victim.kind.qualified_singular(), victim.name);
        let answer = if self.dry_run == DryRun::Client {
            cluster.get(&path).await
        } else {
            cluster.delete(&path, &self.options()).await
        };
        match answer {
            Ok(answer) => {
                if self.output.is_some() {
                    println!("{}", victim.kind.named(&victim.name));
                } else {
                    let how = if self.force { "force deleted" } else { "deleted" };
                    println!("{shown} {how}{}", self.dry_run.suffix());
                }
                let uid = match answer["kind"] == "Status" {
                    true => answer["details"]["uid"].as_str(),
                    false => answer["metadata"]["uid"].as_str(),
                };
                Ok(uid.map(str::to_owned))
            }
            Err(error)
                if self.ignore_not_found && error.downcast_ref::<ApiError>().is_some_and(ApiError::is_not_found) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn options(&self) -> Value {
        let policy = match self.cascade {
            Cascade::Background => "Background",
            Cascade::Foreground => "Foreground",
            Cascade::Orphan => "Orphan",
        };
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        let grace = match (self.grace_period, self.force, self.now) {
            (_, _, true) => Some(1),
            // Ending a pod without its node's word is only for --force.
            (Some(0), false, _) => Some(1),
            (Some(seconds), _, _) if seconds >= 0 => Some(seconds),
            (_, true, _) => Some(0),
            _ => None,
        };
        if let Some(seconds) = grace {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        if self.dry_run == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        options
    }
}

/// Returns when the object is not there any more, or another stands under its name.
async fn gone(cluster: &Cluster, victim: &Victim, uid: &str) -> anyhow::Result<()> {
    let field = format!("metadata.name={}", victim.name);
    let list = resource_path(&victim.kind, Some(&victim.namespace));
    loop {
        let found = cluster.get(&with_query(&list, &[("fieldSelector", &field)])).await?;
        let there = found["items"].as_array().is_some_and(|items| items.iter().any(|i| i["metadata"]["uid"] == uid));
        if !there {
            return Ok(());
        }
        let revision = found["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let query = [("fieldSelector", field.as_str()), ("watch", "true"), ("resourceVersion", revision)];
        let mut lines = cluster.stream(&with_query(&list, &query), "application/json").await?.lines();
        while let Some(line) = lines.next().await {
            let event: Value = serde_json::from_str(&line?)?;
            match event["type"].as_str() {
                Some("DELETED") => return Ok(()),
                // The revision is too old by now: look again.
                Some("ERROR") => break,
                _ => {}
            }
        }
    }
}
