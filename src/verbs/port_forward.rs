//! `fairlead port-forward`: ports of this host that lead to ports of a pod.
//!
//! | file | what it knows |
//! |---|---|
//! | `listener` | the ports of this host, and who connects to them |
//! | `session` | all connections in one session: SPDY in a WebSocket |
//! | `connection` | one connection of a session |
//! | `channels` | a WebSocket for each connection, for older servers |

mod channels;
mod connection;
mod listener;
mod session;
#[cfg(test)]
mod tests;

use anyhow::{Context, bail};
use fairlead_node_agent::tunnel;
use serde_json::Value;

use self::listener::Forward;
use super::remote::{self, PodTarget};
use crate::{
    cluster::{ApiError, Cluster, ConnectArgs, Socket, connect, with_query},
    printable::printable,
};

/// Forward ports of this host to a pod
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead port-forward web-1 8080:80
  fairlead port-forward service/web 8080:http
  fairlead port-forward deployment/web :80      # a free port of this host
  fairlead port-forward --address 0.0.0.0 web-1 80")]
pub struct PortForward {
    /// POD, or TYPE/NAME of something that has pods (deployment/web, service/web)
    #[arg(value_name = "POD")]
    pod: String,
    /// Port of this host and of the pod, by number or name: 80 is 80:80, and :80 takes a free one of this host
    #[arg(value_name = "[LOCAL:]REMOTE", required = true)]
    ports: Vec<String>,
    /// Addresses of this host to listen on
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl PortForward {
    /// Runs until it is interrupted, or the connection to the pod is lost.
    pub async fn run(self) -> anyhow::Result<()> {
        remote::ignore_broken_pipes();
        let cluster = connect(&self.connect).await?;
        let (pod, owner) = remote::find(&cluster, &self.pod, None, true).await?;
        if pod.pod["status"]["phase"] != "Running" {
            let phase = pod.pod["status"]["phase"].as_str().unwrap_or("unknown");
            bail!("unable to forward port because pod is not running. Current status={phase}");
        }
        let forwards = self.ports.iter().map(|word| forward(word, &pod, owner.as_ref()));
        let forwards: Vec<Forward> = forwards.collect::<anyhow::Result<_>>()?;
        // Before anybody may connect, as kubectl does.
        let tunnel = dial(&cluster, &pod, &forwards).await?;
        let mut listeners = Vec::new();
        for forward in forwards {
            listeners.extend(listener::listen(&self.address, forward).await?);
        }
        let is_gone = async || is_gone(&cluster, &pod).await;
        match tunnel {
            Some(socket) => session::run(socket, listeners, is_gone).await,
            None => channels::run(&cluster, &pod, listeners, is_gone).await,
        }
    }
}

/// Opens the session. `None` where the server does not know such sessions: Kubernetes before 1.31, which chooses the
/// older protocol of the two.
async fn dial(cluster: &Cluster, pod: &PodTarget, forwards: &[Forward]) -> anyhow::Result<Option<Socket>> {
    // The older protocol has to know a port; streams name theirs.
    let first = forwards.first().map(|forward| forward.remote.to_string()).unwrap_or_default();
    let path = with_query(&format!("{}/portforward", pod.path), &[("ports", &first)]);
    let protocols = [tunnel::PORT_FORWARD, channels::PROTOCOL];
    let (mut socket, protocol) = cluster.negotiate_socket(&path, &protocols).await?;
    if protocol == tunnel::PORT_FORWARD {
        return Ok(Some(socket));
    }
    // A server that does not hear it sees the end of the connection.
    socket.close(None).await.ok();
    Ok(None)
}

/// Whether the pod has surely gone, or another one has its name. Who cannot be asked does not say so.
async fn is_gone(cluster: &Cluster, pod: &PodTarget) -> bool {
    match cluster.get(&pod.path).await {
        Ok(now) => {
            let has_ended = matches!(now["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            has_ended || now["metadata"]["uid"] != pod.pod["metadata"]["uid"]
        }
        Err(error) => error.downcast_ref::<ApiError>().is_some_and(ApiError::is_not_found),
    }
}

/// What the user is told of a connection that failed. A node may have written the error.
fn failed(local: u16, remote: u16, error: &anyhow::Error) -> String {
    format!("an error occurred forwarding {local} -> {remote}: {}", printable(&error.to_string()))
}

/// `8080:80`, `8080`, `:80` or `:http`. A Service's ports are its own, and lead to those of its pods.
fn forward(word: &str, pod: &PodTarget, owner: Option<&Value>) -> anyhow::Result<Forward> {
    let (local, remote) = word.split_once(':').unwrap_or((word, word));
    let number = remote_port(remote, pod, owner)?;
    let local = match (local, local.parse()) {
        ("", _) => 0,
        (_, Ok(local)) => local,
        // A port by its name: here it has the number that it has there.
        _ if local == remote => number,
        _ => bail!("invalid local port {local:?}: it is a number from 1 to 65535"),
    };
    Ok(Forward { local, remote: number })
}

fn remote_port(word: &str, pod: &PodTarget, owner: Option<&Value>) -> anyhow::Result<u16> {
    let number: Option<u16> = word.parse().ok();
    let service = owner.filter(|owner| owner["kind"] == "Service");
    let target = match service {
        None => Value::from(word),
        Some(service) => {
            let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
            let found = ports.iter().find(|port| match number {
                Some(number) => port["port"] == number,
                None => port["name"] == word,
            });
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            let found = found.with_context(|| format!("Service {name} does not have a service port {word}"))?;
            match &found["targetPort"] {
                Value::Null => found["port"].clone(),
                // A headless Service is no forwarder: its names lead to the ports of pods as they are.
                _ if service["spec"]["clusterIP"] == "None" => found["port"].clone(),
                target => target.clone(),
            }
        }
    };
    let number = match &target {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.parse().ok().or_else(|| named_port(pod, text)),
        _ => None,
    };
    match number {
        Some(number) if number > 0 => Ok(number),
        _ => bail!("Pod '{}' does not have a named port '{word}'", pod.name()),
    }
}

fn named_port(pod: &PodTarget, name: &str) -> Option<u16> {
    let containers = pod.pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let port = ports.find(|port| port["name"] == name)?;
    port["containerPort"].as_u64().and_then(|number| u16::try_from(number).ok())
}
