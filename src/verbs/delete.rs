//! `fairlead delete`: removes objects, and by default waits until they are gone.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    apply::DryRun,
    objects::{ObjectQuery, WithoutNames},
};
use crate::{
    cluster::{ApiError, Cluster, ConnectArgs, ResourceType, connect, object_path, until},
    failure::{self, AlreadyReported},
    manifest::FileArgs,
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
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// Delete all objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// In all namespaces, with -l or --all
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Delete the objects whose labels match
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Delete the objects whose fields match
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// Seconds that a pod has to end; 0 only with --force
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    grace_period: Option<i64>,
    /// End pods at once, without waiting for their node to confirm
    #[arg(long)]
    force: bool,
    /// End pods with a grace period of one second
    #[arg(long)]
    now: bool,
    /// Wait until the objects are gone
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait, such as 30s or 5m; 0 for as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = crate::role::parse_duration)]
    timeout: Duration,
    /// What becomes of dependents: background, foreground or orphan
    #[arg(long, value_name = "HOW", default_value = "background", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "background")]
    cascade: Cascade,
    /// No error when a named object is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Only say what would be done
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "client")]
    dry_run: DryRun,
    /// Print only names: `-o name`
    #[arg(short, long, value_name = "FORMAT", value_parser = ["name"])]
    output: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
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
struct Target {
    kind: ResourceType,
    namespace: String,
    name: String,
}

impl Delete {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        self.delete(&connect(&self.connect).await?).await
    }

    async fn delete(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut failed = false;
        let targets = self.targets(cluster, &mut failed).await?;
        if targets.is_empty() && !failed {
            if !self.ignore_not_found {
                eprintln!("No resources found");
            }
            return Ok(());
        }
        let mut waiting = Vec::new();
        for target in targets {
            match self.one(cluster, &target).await {
                Ok(Some(uid)) => waiting.push((target, uid)),
                Ok(None) => {}
                Err(error) => {
                    eprintln!("{}", failure::describe(&error));
                    failed = true;
                }
            }
        }
        if self.wait && self.dry_run == DryRun::None {
            let all_gone = async {
                for (target, uid) in &waiting {
                    gone(cluster, target, uid).await?;
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

    /// What is to be deleted. Manifests that cannot be read are reported; the others are kept.
    async fn targets(&self, cluster: &Cluster, failed: &mut bool) -> anyhow::Result<Vec<Target>> {
        let query = ObjectQuery {
            words: &self.resources,
            files: Some(&self.files),
            all_namespaces: self.all_namespaces,
            all: self.all,
            label_selector: self.selector.as_deref(),
            field_selector: self.field_selector.as_deref(),
            unnamed: WithoutNames::OnlySelected,
        };
        let found = query.resolve(cluster).await?;
        for problem in &found.problems {
            eprintln!("{}", failure::describe(problem));
            *failed = true;
        }
        let mut targets = Vec::new();
        for objects in found.objects {
            let target = |namespace: &str, name: &str| Target {
                kind: objects.kind.clone(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            if objects.names.is_empty() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let listed = objects.list(cluster).await?;
                targets.extend(listed.iter().map(|item| {
                    let metadata = &item["metadata"];
                    target(&text(&metadata["namespace"]), &text(&metadata["name"]))
                }));
            }
            let namespace = objects.namespace.as_deref().unwrap_or_default();
            targets.extend(objects.names.iter().map(|name| target(namespace, name)));
        }
        Ok(targets)
    }

    /// Asks for the deletion. Returns the uid of an object that still exists.
    async fn one(&self, cluster: &Cluster, target: &Target) -> anyhow::Result<Option<String>> {
        let path = object_path(&target.kind, &target.namespace, &target.name)?;
        let shown = format!("{} \"{}\"", target.kind.qualified_singular(), target.name);
        let answer = if self.dry_run == DryRun::Client {
            cluster.get(&path).await
        } else {
            cluster.delete(&path, &self.options()).await
        };
        match answer {
            Ok(answer) => {
                if self.output.is_some() {
                    println!("{}", target.kind.named(&target.name));
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

/// Returns when the object does not exist any more, or another has its name.
async fn gone(cluster: &Cluster, target: &Target, uid: &str) -> anyhow::Result<()> {
    let is_gone = |object: Option<&Value>| object.is_none_or(|object| object["metadata"]["uid"] != uid);
    until(cluster, &target.kind, &target.namespace, &target.name, |object| Ok(is_gone(object).then_some(()))).await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cluster::fake::{Answer, FakeServer};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        delete: Delete,
    }

    fn parse(words: &[&str]) -> Delete {
        Line::parse_from(std::iter::once("delete").chain(words.iter().copied())).delete
    }

    #[tokio::test]
    async fn an_empty_name_deletes_nothing() {
        for words in [&["pod", ""][..], &["pod", "a", ""], &["pod/"], &["pod", "."]] {
            let server = FakeServer::new([]);
            parse(words).delete(&server.cluster("default")).await.expect_err("refused");
            assert_eq!(server.requests(), Vec::<String>::new(), "{words:?}");
        }
    }

    #[tokio::test]
    async fn a_manifest_with_a_generated_name_deletes_nothing() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n").expect("writable");
        let server = FakeServer::new([]);
        let delete = parse(&["-f", &file.path().display().to_string()]);
        delete.delete(&server.cluster("default")).await.expect_err("refused");
        assert_eq!(server.requests(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn names_and_all_namespaces_delete_nothing() {
        let server = FakeServer::new([]);
        let error = parse(&["pod", "a", "-A"]).delete(&server.cluster("default")).await.expect_err("refused");
        assert_eq!(error.to_string(), "a resource cannot be retrieved by name across all namespaces");
        assert_eq!(server.requests(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_wait_goes_on_where_the_stream_breaks_off() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "default", "uid": "1",
            "resourceVersion": "5"}});
        let server = FakeServer::new([
            Answer::json(&pod),
            Answer::json(&json!({"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [pod]})),
            Answer::broken(&[]),
            Answer::Unreachable,
            Answer::events(&[json!({"type": "DELETED", "object": pod})]),
        ]);
        parse(&["pod", "a"]).delete(&server.cluster("default")).await.expect("it goes");
        assert_eq!(server.requests()[0], "DELETE /api/v1/namespaces/default/pods/a");
    }

    #[tokio::test]
    async fn the_longest_timeout_is_no_panic() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "a", "uid": "1"}});
        let none = json!({"kind": "PodList", "metadata": {"resourceVersion": "6"}, "items": []});
        let server = FakeServer::new([Answer::json(&pod), Answer::json(&none)]);
        let delete = parse(&["pod", "a", "--timeout=18446744073709551615", "--grace-period=9223372036854775807"]);
        delete.delete(&server.cluster("default")).await.expect("it is gone");
    }
}
