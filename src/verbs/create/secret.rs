//! `fairlead create secret …`

use std::path::PathBuf;

use anyhow::Context;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::configmap::DataArgs;
use crate::verbs::submit::SubmitArgs;

/// Create a Secret
#[derive(Debug, clap::Subcommand)]
pub enum CreateSecret {
    Generic(Generic),
    Tls(Tls),
}

impl CreateSecret {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Generic(verb) => verb.run().await,
            Self::Tls(verb) => verb.run().await,
        }
    }
}

/// Create a Secret from files and literals
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create secret generic db --from-literal=password=s3cret
  fairlead create secret generic keys --from-file=id_ed25519")]
pub struct Generic {
    /// Name of the Secret
    #[arg(value_name = "NAME")]
    name: String,
    /// Type of the Secret
    #[arg(long, value_name = "TYPE", default_value = "Opaque")]
    r#type: String,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl Generic {
    async fn run(self) -> anyhow::Result<()> {
        let object = secret(&self.name, &self.r#type, self.data.read()?)?;
        let cluster = self.submit.connect().await?;
        self.submit.submit(&cluster, object, "created").await
    }
}

/// Create a Secret from a certificate and its key
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create secret tls site --cert=site.crt --key=site.key")]
pub struct Tls {
    /// Name of the Secret
    #[arg(value_name = "NAME")]
    name: String,
    /// Certificate (PEM)
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Private key (PEM)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl Tls {
    async fn run(self) -> anyhow::Result<()> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let data = vec![("tls.crt".to_owned(), read(&self.cert)?), ("tls.key".to_owned(), read(&self.key)?)];
        let object = secret(&self.name, "kubernetes.io/tls", data)?;
        let cluster = self.submit.connect().await?;
        self.submit.submit(&cluster, object, "created").await
    }
}

fn secret(name: &str, kind: &str, data: Vec<(String, Vec<u8>)>) -> anyhow::Result<Value> {
    let mut object =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": {}});
    for (key, content) in data {
        object["data"][key] = serde_json::to_value(ByteString(content))?;
    }
    Ok(object)
}
