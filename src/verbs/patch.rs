//! `fairlead patch`: changes fields of one object.

use anyhow::Context;
use serde_json::Value;

use crate::{
    cluster::{ConnectArgs, PatchType, connect, object_path, select_one, with_query},
    merge::Schema,
    output::{self, Format},
    yaml,
};

/// Change fields of an object
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead patch deployment web -p '{\"spec\": {\"minReadySeconds\": 5}}'
  fairlead patch svc web --type=merge -p 'spec: {type: NodePort}'
  fairlead patch deploy web --type=json -p '[{\"op\": \"replace\", \"path\": \"/spec/replicas\", \"value\": 3}]'")]
pub struct Patch {
    /// TYPE NAME, or TYPE/NAME
    #[arg(value_name = "RESOURCE", required = true, num_args = 1..=2)]
    resource: Vec<String>,
    /// The patch, in JSON or YAML
    #[arg(short, long, value_name = "PATCH", required_unless_present = "patch_file")]
    patch: Option<String>,
    /// File with the patch
    #[arg(long, value_name = "FILE", conflicts_with = "patch")]
    patch_file: Option<std::path::PathBuf>,
    /// strategic merges lists by their keys, merge replaces them (RFC 7386), json is a list of operations (RFC 6902)
    #[arg(long, value_name = "TYPE", value_enum)]
    r#type: Option<Kind>,
    /// Print the object: json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Strategic,
    Merge,
    Json,
}

impl Patch {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let text = match (&self.patch, &self.patch_file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) => {
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
            }
            (None, None) => String::new(),
        };
        let patch: Value = yaml::read(&text).context("the patch cannot be read")?;
        let cluster = connect(&self.connect).await?;
        let (resource, name) = select_one(cluster.resources().await?, &self.resource)?;
        let kind = match (self.r#type, Schema::of(&resource.group, &resource.kind)) {
            (Some(Kind::Strategic), _) | (None, Schema::Strategic { .. }) => PatchType::Strategic,
            (Some(Kind::Merge), _) | (None, Schema::Json) => PatchType::Merge,
            (Some(Kind::Json), _) => PatchType::Json,
        };
        let path = object_path(&resource, cluster.namespace(), &name)?;
        let before = cluster.get(&path).await?;
        let query = [("fieldManager", "fairlead"), ("fieldValidation", "Strict")];
        let after = cluster.patch(&with_query(&path, &query), kind, &patch).await?;
        let shown = resource.named(&name);
        match &self.output {
            Some(format) => output::print_object(format, &after, &shown)?,
            None if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] => {
                println!("{shown} patched (no change)");
            }
            None => println!("{shown} patched"),
        }
        Ok(())
    }
}
