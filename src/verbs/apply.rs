//! `fairlead apply`: makes the cluster hold what manifests say, by a three-way merge compatible with kubectl's.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{
    cluster::{ApiError, Cluster, ConnectArgs, PatchType, connect, object_path, resource_path, with_query},
    failure::{self, AlreadyReported, ErrorWithHint},
    manifest::{self, FileArgs, Manifest},
    merge::{self, LAST_APPLIED, Schema},
    output::{self, Format},
};

/// Make the cluster hold what the manifests say
///
/// Creates what is not there and changes what differs. Fields that others have set (autoscalers, controllers, defaults)
/// stay; fields that were applied before and are gone from the manifest are removed. Can be mixed with `kubectl apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead apply -f web.yaml
  fairlead apply -f manifests/ -R
  cat web.yaml | fairlead apply -f -
  fairlead apply -f web.yaml --dry-run=server -o yaml
  fairlead apply -f web.yaml --server-side --force-conflicts")]
pub struct Apply {
    #[command(flatten)]
    files: FileArgs,
    /// Only say what would be done: `client` asks nothing of the server, `server` has it checked there
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "client")]
    dry_run: DryRun,
    /// Let the server merge, which keeps account of who owns which field
    #[arg(long)]
    server_side: bool,
    /// With --server-side: take fields that others own
    #[arg(long, requires = "server_side")]
    force_conflicts: bool,
    /// Under which name the server keeps the fields
    #[arg(long, value_name = "NAME", default_value = "fairlead")]
    field_manager: String,
    /// Print the objects: json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Who does a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    None,
    Client,
    Server,
}

impl DryRun {
    /// The query that every writing request carries.
    pub fn query(self) -> Vec<(&'static str, &'static str)> {
        self.query_as("fairlead")
    }

    /// The same for changes that are kept under another name.
    pub fn query_as(self, field_manager: &str) -> Vec<(&str, &str)> {
        let mut query = vec![("fieldManager", field_manager), ("fieldValidation", "Strict")];
        if self == Self::Server {
            query.push(("dryRun", "All"));
        }
        query
    }

    /// What is put behind the name of what was done.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
    AppliedServerSide,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::AppliedServerSide => "serverside-applied",
        }
    }
}

impl Apply {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        if self.files.filename.is_empty() {
            return Err(ErrorWithHint::new("must specify -f", "for instance: fairlead apply -f web.yaml").into());
        }
        if self.server_side && self.dry_run == DryRun::Client {
            let hint = "did you mean --dry-run=server?";
            return Err(ErrorWithHint::new("--dry-run=client doesn't work with --server-side", hint).into());
        }
        let documents = manifest::read(&self.files)?;
        if documents.is_empty() {
            bail!("no objects passed to apply");
        }
        let cluster = connect(&self.connect).await?;
        let mut failed = false;
        for document in documents {
            let done = match document {
                Ok(manifest) => self.one(&cluster, &manifest).await,
                Err(problem) => Err(problem.into()),
            };
            if let Err(error) = done {
                eprintln!("{}", failure::describe(&error));
                failed = true;
            }
        }
        if failed { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    async fn one(&self, cluster: &Cluster, manifest: &Manifest) -> anyhow::Result<()> {
        let (name, outcome, object) = match self.server_side {
            true => self.server_side(cluster, manifest).await?,
            false => apply(cluster, manifest, self.dry_run, &self.field_manager).await?,
        };
        match &self.output {
            Some(format) => output::print_object(format, &object, &name),
            None => {
                println!("{name} {}{}", outcome.word(), self.dry_run.suffix());
                Ok(())
            }
        }
    }
}

impl Apply {
    /// Has the server apply one manifest.
    async fn server_side(&self, cluster: &Cluster, manifest: &Manifest) -> anyhow::Result<(String, Outcome, Value)> {
        let target = super::target(cluster, manifest).await?;
        if manifest.name().is_empty() {
            bail!("{}: cannot use generateName with apply; use create", manifest.location);
        }
        let path = object_path(&target.kind, &target.namespace, manifest.name())?;
        let mut query = self.dry_run.query_as(&self.field_manager);
        query.push(("force", if self.force_conflicts { "true" } else { "false" }));
        let applied = cluster.patch(&with_query(&path, &query), PatchType::Apply, &target.object).await;
        let applied = applied.map_err(|error| match error.downcast_ref::<ApiError>() {
            Some(conflict) if conflict.is_apply_conflict() => {
                let hint = "leave these fields out of the manifest, set them to the values that they have, or take them \
                            with --force-conflicts";
                ErrorWithHint::new(conflict.to_string(), hint).into()
            }
            _ => error,
        });
        let applied = applied.with_context(|| manifest.location.error_prefix("applying"))?;
        Ok((target.kind.named(manifest.name()), Outcome::AppliedServerSide, applied))
    }
}

/// Applies one manifest, by a merge on this side. Returns the object's name as kubectl shows it, what was done, and the
/// object as it is afterwards.
pub async fn apply(
    cluster: &Cluster,
    manifest: &Manifest,
    dry_run: DryRun,
    field_manager: &str,
) -> anyhow::Result<(String, Outcome, Value)> {
    let target = super::target(cluster, manifest).await?;
    if manifest.name().is_empty() {
        bail!("{}: cannot use generateName with apply; use create", manifest.location);
    }
    let path = object_path(&target.kind, &target.namespace, manifest.name())?;
    let name = target.kind.named(manifest.name());
    let modified = merge::with_last_applied(&target.object);
    let current = match cluster.get(&path).await {
        Ok(current) => current,
        Err(error) if error.downcast_ref::<ApiError>().is_some_and(ApiError::is_not_found) => {
            if dry_run == DryRun::Client {
                return Ok((name, Outcome::Created, modified));
            }
            let list = resource_path(&target.kind, Some(&target.namespace));
            let created = cluster.post(&with_query(&list, &dry_run.query_as(field_manager)), &modified).await;
            return Ok((name, Outcome::Created, created.with_context(|| manifest.location.error_prefix("creating"))?));
        }
        Err(error) => return Err(error.context(manifest.location.error_prefix("retrieving"))),
    };
    let original = merge::original(&current);
    if original.is_none() {
        eprintln!(
            "Warning: resource {} is missing the {LAST_APPLIED} annotation, which apply keeps what was applied in; it \
              will be added.",
            name
        );
    }
    let schema = Schema::of(&target.kind.group, &target.kind.kind);
    let patch = merge::three_way(schema, &original.unwrap_or_else(|| json!({})), &modified, &current);
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok((name, Outcome::Unchanged, current));
    }
    if dry_run == DryRun::Client {
        return Ok((name, Outcome::Configured, modified));
    }
    let patch_type = match schema {
        Schema::Strategic { .. } => PatchType::Strategic,
        Schema::Json => PatchType::Merge,
    };
    let patched = cluster.patch(&with_query(&path, &dry_run.query_as(field_manager)), patch_type, &patch).await;
    let patched = patched.with_context(|| manifest.location.error_prefix("applying patch to"))?;
    Ok((name, Outcome::Configured, patched))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn formats_are_read_from_the_flag() {
        assert!(matches!(Format::from_str("yaml"), Ok(Format::Yaml)));
        assert!(Format::from_str("xml").is_err());
    }
}
