//! `fairlead token …`: the tokens by which new nodes join, through the API as anyone with the right to the Secrets.

use std::time::Duration;

use anyhow::Context;
use fairlead_control::auth::{
    bootstrap_token::{self, BootstrapToken},
    pki,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    cluster::{Cluster, ConnectArgs, connect, object_path, resource_path, with_query},
    output::Grid,
};

/// Make, list and delete the tokens by which nodes join
#[derive(Debug, clap::Subcommand)]
pub enum Token {
    Create(Create),
    List(List),
    Delete(Delete),
}

impl Token {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create(verb) => verb.run().await,
            Self::List(verb) => verb.run().await,
            Self::Delete(verb) => verb.run().await,
        }
    }
}

/// Make a join token and print it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead token create
  fairlead token create --ttl 1h
  fairlead token create --print-join-command")]
pub struct Create {
    /// How long the token is good
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = super::parse_duration)]
    ttl: Duration,
    /// Print the whole command to run on the new node
    #[arg(long)]
    print_join_command: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let ca = cluster
            .ca_certificate()
            .context("the kubeconfig names no certificate authority, which a join token must")?;
        let token = BootstrapToken::random();
        let secret = token.to_secret(bootstrap_token::expiration(Timestamp::now(), self.ttl));
        let mut secret = serde_json::to_value(&secret).context("cannot encode the token's Secret")?;
        secret["apiVersion"] = "v1".into();
        secret["kind"] = "Secret".into();
        let secrets = cluster.resources().await?.resolve("secrets")?;
        cluster.post(&resource_path(secrets, Some(bootstrap_token::NAMESPACE)), &secret).await?;
        let text = token.join_text(&pki::certificate_hash(ca));
        if self.print_join_command {
            println!("fairlead node run --join {} --token {text}", cluster.server().trim_end_matches('/'));
        } else {
            println!("{text}");
        }
        Ok(())
    }
}

/// List the join tokens that there are
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead token list")]
pub struct List {
    #[command(flatten)]
    connect: ConnectArgs,
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let mut grid = Grid::default();
        grid.row(["TOKEN ID", "EXPIRES"]);
        for secret in stored(&cluster).await? {
            let name = secret["metadata"]["name"].as_str().unwrap_or_default();
            let expires = field(&secret, "expiration").unwrap_or_else(|| "never".into());
            grid.row([name.trim_start_matches("bootstrap-token-").to_owned(), expires]);
        }
        print!("{}", grid.render());
        Ok(())
    }
}

/// Delete a join token, so that nobody joins by it any more
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead token delete abcdef")]
pub struct Delete {
    /// The token, or its first six characters
    #[arg(value_name = "TOKEN")]
    token: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Delete {
    async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let id = self.token.split('.').next().unwrap_or_default();
        let secrets = cluster.resources().await?.resolve("secrets")?;
        let path = object_path(secrets, bootstrap_token::NAMESPACE, &format!("bootstrap-token-{id}"));
        cluster.delete(&path, &serde_json::json!({})).await?;
        println!("token \"{id}\" deleted");
        Ok(())
    }
}

async fn stored(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let secrets = cluster.resources().await?.resolve("secrets")?;
    let list = resource_path(secrets, Some(bootstrap_token::NAMESPACE));
    let mut found = cluster.get(&with_query(&list, &[("fieldSelector", "type=bootstrap.kubernetes.io/token")])).await?;
    match found["items"].take() {
        Value::Array(items) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

/// A field of a Secret, decoded.
fn field(secret: &Value, name: &str) -> Option<String> {
    let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret.clone()).ok()?;
    String::from_utf8(secret.data?.get(name)?.0.clone()).ok()
}
