//! `fairlead create`: new objects, from manifests or from the words of the command line.

mod configmap;
mod deployment;
mod namespace;
mod secret;
mod service;
mod serviceaccount;

use anyhow::Context;

use super::submit::SubmitArgs;
use crate::{
    cluster::{resource_path, with_query},
    failure::{self, AlreadyReported, ErrorWithHint},
    manifest::{self, FileArgs, Manifest},
    output,
};

/// Create objects, from manifests or by name
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  fairlead create -f web.yaml
  fairlead create deployment web --image=nginx --replicas=2
  fairlead create configmap settings --from-literal=colour=blue --from-file=app.conf
  fairlead create namespace team-a"
)]
pub struct Create {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    submit: SubmitArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    #[command(visible_alias = "deploy")]
    Deployment(deployment::CreateDeployment),
    #[command(visible_alias = "ns")]
    Namespace(namespace::CreateNamespace),
    #[command(name = "configmap", visible_alias = "cm")]
    ConfigMap(configmap::CreateConfigMap),
    #[command(subcommand)]
    Secret(secret::CreateSecret),
    #[command(subcommand, visible_alias = "svc")]
    Service(service::CreateService),
    #[command(name = "serviceaccount", visible_alias = "sa")]
    ServiceAccount(serviceaccount::CreateServiceAccount),
}

impl Create {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.kind {
            Some(Kind::Deployment(verb)) => verb.run().await,
            Some(Kind::Namespace(verb)) => verb.run().await,
            Some(Kind::ConfigMap(verb)) => verb.run().await,
            Some(Kind::Secret(verb)) => verb.run().await,
            Some(Kind::Service(verb)) => verb.run().await,
            Some(Kind::ServiceAccount(verb)) => verb.run().await,
            None => self.create_files().await,
        }
    }

    async fn create_files(self) -> anyhow::Result<()> {
        if self.files.filename.is_empty() {
            return Err(ErrorWithHint::new(
                "must specify -f, or what to create",
                "for instance: fairlead create -f web.yaml",
            )
            .into());
        }
        let documents = manifest::read(&self.files)?;
        anyhow::ensure!(!documents.is_empty(), "no objects passed to create");
        let cluster = self.submit.connect().await?;
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

    async fn one(&self, cluster: &crate::cluster::Cluster, manifest: &Manifest) -> anyhow::Result<()> {
        let target = super::target(cluster, manifest).await?;
        let path = resource_path(&target.kind, Some(&target.namespace));
        let created = match self.submit.dry_run {
            super::apply::DryRun::Client => target.object,
            dry_run => cluster
                .post(&with_query(&path, &dry_run.query()), &target.object)
                .await
                .with_context(|| manifest.location.error_prefix("creating"))?,
        };
        let name = target.kind.named(created["metadata"]["name"].as_str().unwrap_or_default());
        match &self.submit.output {
            Some(format) => output::print_object(format, &created, &name),
            None => {
                println!("{name} created{}", self.submit.dry_run.suffix());
                Ok(())
            }
        }
    }
}
