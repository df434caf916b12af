//! `fairlead token …`: the tokens by which new nodes join, through the API as anyone with the right to the Secrets.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use fairlead_control::auth::{
    bootstrap_token::{self, BootstrapToken},
    pki,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    cluster::{Cluster, ConnectArgs, connect, object_path, resource_path, with_query},
    failure::ErrorWithHint,
    output::Grid,
};

/// Make, list and delete the tokens by which nodes join
#[derive(Debug, clap::Subcommand)]
pub enum Token {
    Create(CreateToken),
    List(ListTokens),
    Delete(DeleteToken),
}

impl Token {
    /// Runs the verb to its end.
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
pub struct CreateToken {
    /// How long the token is good
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = super::parse_duration)]
    ttl: Duration,
    /// Print the whole command to run on the new node
    #[arg(long)]
    print_join_command: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl CreateToken {
    async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let ca = cluster
            .ca_certificate()
            .context("the kubeconfig names no certificate authority, which a join token must")?;
        // Checked before the token is made: a failure must not leave a valid token that was never printed.
        let join_url = match self.print_join_command {
            true => join_url(cluster.server(), &advertised(&cluster).await?)?,
            false => String::new(),
        };
        let token = BootstrapToken::random();
        let secret = token.to_secret(bootstrap_token::expiration(Timestamp::now(), self.ttl));
        let mut secret = fairlead_client::to_value(&secret).context("cannot encode the token's Secret")?;
        secret["apiVersion"] = "v1".into();
        secret["kind"] = "Secret".into();
        let secrets = cluster.resources().await?.resolve("secrets")?;
        cluster.post(&resource_path(secrets, Some(bootstrap_token::NAMESPACE)), &secret).await?;
        let text = token.join_text(&pki::certificate_hash(ca));
        if self.print_join_command {
            println!("fairlead node run --join {join_url} --token {text}");
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
pub struct ListTokens {
    #[command(flatten)]
    connect: ConnectArgs,
}

impl ListTokens {
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
pub struct DeleteToken {
    /// The token, or its first six characters
    #[arg(value_name = "TOKEN")]
    token: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl DeleteToken {
    async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let id = self.token.split('.').next().unwrap_or_default();
        let secrets = cluster.resources().await?.resolve("secrets")?;
        let path = object_path(secrets, bootstrap_token::NAMESPACE, &format!("bootstrap-token-{id}"))?;
        cluster.delete(&path, &serde_json::json!({})).await?;
        println!("token \"{id}\" deleted");
        Ok(())
    }
}

/// The addresses that the control service advertises: the endpoints of the Service `default/kubernetes`.
async fn advertised(cluster: &Cluster) -> anyhow::Result<Vec<SocketAddr>> {
    let slices = cluster.resources().await?.resolve("endpointslices.discovery.k8s.io")?;
    let list = resource_path(slices, Some("default"));
    let found = cluster.get(&with_query(&list, &[("labelSelector", "kubernetes.io/service-name=kubernetes")])).await?;
    let slices = found["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(slices.iter().flat_map(socket_addresses).collect())
}

/// Every address of an EndpointSlice with its first port.
fn socket_addresses(slice: &Value) -> Vec<SocketAddr> {
    let Some(port) = slice["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else {
        return Vec::new();
    };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let addresses = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    addresses.filter_map(|ip| Some(SocketAddr::new(ip.as_str()?.parse().ok()?, port))).collect()
}

/// Where other hosts reach the server: by the kubeconfig's own URL, or, where that is loopback, by what the server
/// advertises.
fn join_url(server: &str, advertised: &[SocketAddr]) -> anyhow::Result<String> {
    let uri: http::Uri = server.parse().with_context(|| format!("the kubeconfig's server {server} is no URL"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback() || ip.is_unspecified());
    if !is_local {
        return Ok(server.trim_end_matches('/').to_owned());
    }
    let Some(address) = advertised.iter().find(|address| !address.ip().is_loopback()) else {
        return Err(ErrorWithHint::new(
            format!("no other host reaches {server}, and the control service advertises no other address"),
            "start the control service with --bind 0.0.0.0:6443 and --advertise IP, where IP is an address of this \
              host",
        )
        .into());
    };
    Ok(format!("https://{address}"))
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
    let secret: k8s_openapi::api::core::v1::Secret = fairlead_client::from_value(secret).ok()?;
    String::from_utf8(secret.data?.get(name)?.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn advertised(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn the_join_command_names_an_address_that_other_hosts_reach() {
        let known = advertised(&["10.0.0.1:6443"]);
        for server in
            ["https://127.0.0.1:6443", "https://localhost:6443/", "https://[::1]:6443", "https://0.0.0.0:6443"]
        {
            assert_eq!(join_url(server, &known).expect(server), "https://10.0.0.1:6443", "{server}");
        }
        for server in ["https://192.0.2.7:6443", "https://api.example.com"] {
            assert_eq!(join_url(&format!("{server}/"), &known).expect(server), server);
        }
        assert_eq!(
            join_url("https://127.0.0.1:6443", &advertised(&["[2001:db8::1]:6443"])).expect("IPv6"),
            "https://[2001:db8::1]:6443"
        );
    }

    #[test]
    fn a_server_on_loopback_alone_gives_no_join_command() {
        for known in [&[][..], &["127.0.0.1:6443"]] {
            let error = join_url("https://127.0.0.1:6443", &advertised(known)).expect_err("nobody reaches it");
            assert!(crate::failure::describe(&error).contains("--advertise"));
        }
    }

    #[test]
    fn the_advertised_addresses_are_those_of_the_endpoint_slice() {
        let slice =
            json!({"ports": [{"port": 6443}], "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]});
        assert_eq!(socket_addresses(&slice), advertised(&["10.0.0.1:6443", "10.0.0.2:6443"]));
        assert_eq!(socket_addresses(&json!({"ports": [{"port": 70000}], "endpoints": []})), []);
    }
}
