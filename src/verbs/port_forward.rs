//! `fairlead port-forward`: ports of this host that lead to ports of a pod.

use std::{
    io::Write,
    net::SocketAddr,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use super::remote::{self, PodTarget};
use crate::{
    cluster::{Cluster, ConnectArgs, Socket, connect, with_query},
    failure::ErrorWithHint,
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
    /// Port of this host and of the pod, by number or name; a free one where the first is missing
    #[arg(value_name = "[LOCAL:]REMOTE", required = true)]
    ports: Vec<String>,
    /// Addresses of this host to listen on
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// The protocol of one connection to one port: two channels.
const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
/// Bytes of a local connection that are sent at a time.
const READ: usize = 32 * 1024;

/// One port of this host, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Forward {
    /// 0 for a free one.
    local: u16,
    remote: u16,
}

impl PortForward {
    /// Runs until it is interrupted.
    pub async fn run(self) -> anyhow::Result<()> {
        remote::ignore_broken_pipes();
        let cluster = connect(&self.connect).await?;
        let (pod, owner) = remote::find(&cluster, &self.pod, None, true).await?;
        if pod.pod["status"]["phase"] != "Running" {
            let phase = pod.pod["status"]["phase"].as_str().unwrap_or("unknown");
            bail!("unable to forward port because pod is not running. Current status={phase}");
        }
        let mut listeners = Vec::new();
        for word in &self.ports {
            let forward = forward(word, &pod, owner.as_ref())?;
            listeners.extend(self.listen(forward).await?.into_iter().map(|listener| (listener, forward.remote)));
        }
        let mut accepting: FuturesUnordered<_> =
            listeners.iter().map(|(listener, remote)| serve(&cluster, &pod, listener, *remote)).collect();
        match accepting.next().await {
            Some(Err(error)) => Err(error),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// All addresses have the same port; one of them suffices.
    async fn listen(&self, forward: Forward) -> anyhow::Result<Vec<TcpListener>> {
        let (mut listeners, mut local, mut failure) = (Vec::<TcpListener>::new(), forward.local, None);
        let addresses = self.address.iter().flat_map(|address| match address.as_str() {
            "localhost" => vec!["127.0.0.1", "::1"],
            other => vec![other],
        });
        for address in addresses {
            let ip = address.parse().map_err(|_| {
                ErrorWithHint::new(format!("{address:?} is no address"), "use an IP address, or localhost")
            })?;
            match TcpListener::bind(SocketAddr::new(ip, local)).await {
                Ok(listener) => {
                    let bound = listener.local_addr()?;
                    local = bound.port();
                    say(format_args!("Forwarding from {bound} -> {}", forward.remote));
                    listeners.push(listener);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if listeners.is_empty() => {
                Err(error).with_context(|| format!("unable to listen on port {local}"))
            }
            _ => Ok(listeners),
        }
    }
}

/// Prints a line. Who does not read it is not told.
fn say(line: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").ok();
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

/// Forwards what connects to `listener`. Ends with an error where the pod cannot be reached any more.
async fn serve(cluster: &Cluster, pod: &PodTarget, listener: &TcpListener, remote: u16) -> anyhow::Result<()> {
    let path = with_query(&format!("{}/portforward", pod.path), &[("ports", &remote.to_string())]);
    let local = listener.local_addr()?.port();
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("cannot accept connections")?,
            Some(ended) = connections.join_next() => {
                let ended: anyhow::Result<()> = ended.context("a connection's task ended early")?;
                if let Err(error) = ended {
                    eprintln!("{}", failed(local, remote, &error));
                }
                continue;
            }
        };
        say(format_args!("Handling connection for {local}"));
        let socket = cluster.open_socket(&path, PROTOCOL).await?;
        connections.spawn(copy(client, socket));
    }
}

/// What the user is told of a connection that failed. A node may have written the error.
fn failed(local: u16, remote: u16, error: &anyhow::Error) -> String {
    format!("an error occurred forwarding {local} -> {remote}: {}", printable(&error.to_string()))
}

/// The protocol has no word for the end of one direction: once the client sends no more, the connection ends with the
/// pod's, or when the pod has sent nothing for so long.
const QUIET: Duration = Duration::from_secs(5);

/// Copies both ways until the pod has ended the connection, or cannot be connected to.
async fn copy(client: TcpStream, socket: Socket) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut to_pod, mut from_pod) = socket.split();
    let up = async {
        let mut buffer = BytesMut::with_capacity(READ);
        while from_client.read_buf(&mut buffer).await? > 0 {
            to_pod.send(Message::binary([&[DATA], &buffer.split()[..]].concat())).await?;
            buffer.reserve(READ);
        }
        anyhow::Ok(())
    };
    let received = AtomicU64::new(0);
    let mut down = pin!(async {
        // The first message of each channel repeats the port.
        let mut begun = [false; 2];
        while let Some(message) = from_pod.next().await {
            let mut bytes: Bytes = match message {
                Ok(Message::Binary(bytes)) if !bytes.is_empty() => bytes,
                Ok(_) => continue,
                Err(_) => break,
            };
            let channel = bytes.split_to(1)[0];
            match begun.get_mut(usize::from(channel)) {
                Some(begun) if !*begun => *begun = true,
                Some(_) if channel == DATA => {
                    to_client.write_all(&bytes).await?;
                    received.fetch_add(1, Ordering::Relaxed);
                }
                _ => bail!("{}", String::from_utf8_lossy(&bytes)),
            }
        }
        to_client.shutdown().await?;
        anyhow::Ok(())
    });
    tokio::select! {
        ended = &mut down => return ended,
        sent = up => sent?,
    }
    loop {
        let before = received.load(Ordering::Relaxed);
        match tokio::time::timeout(QUIET, &mut down).await {
            Ok(ended) => return ended,
            Err(_) if received.load(Ordering::Relaxed) == before => return Ok(()),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> PodTarget {
        let pod = json!({"metadata": {"name": "web-1"}, "spec": {"containers": [{"name": "c",
            "ports": [{"name": "http", "containerPort": 8080}]}]}});
        PodTarget { pod, path: String::new(), container: "c".into() }
    }

    #[test]
    fn what_a_node_says_of_a_failure_does_not_reach_the_terminal() {
        let told = failed(8080, 80, &anyhow::anyhow!("refused\u{1b}[2J"));
        assert_eq!(told, "an error occurred forwarding 8080 -> 80: refused^[[2J");
    }

    #[test]
    fn ports_are_numbers_or_names_of_the_pod_or_its_service() {
        let of = |word| forward(word, &pod(), None).map(|found| (found.local, found.remote)).map_err(|e| e.to_string());
        assert_eq!(of("80"), Ok((80, 80)));
        assert_eq!(of("8000:80"), Ok((8000, 80)));
        assert_eq!(of(":80"), Ok((0, 80)));
        assert_eq!(of("9000:http"), Ok((9000, 8080)));
        assert_eq!(of("http"), Ok((8080, 8080)));
        assert_eq!(of(":no").unwrap_err(), "Pod 'web-1' does not have a named port 'no'");
        for wrong in ["0", "70000", "x:80", ""] {
            of(wrong).unwrap_err();
        }
        let service = json!({"kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.9",
            "ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 81, "targetPort": 9000},
            {"name": "same", "port": 82}]}});
        let of = |word| forward(word, &pod(), Some(&service)).map(|found| (found.local, found.remote));
        assert_eq!(of("80").unwrap(), (80, 8080));
        assert_eq!(of("1:web").unwrap(), (1, 8080));
        assert_eq!(of(":81").unwrap(), (0, 9000));
        assert_eq!(of("82").unwrap(), (82, 82));
        assert_eq!(of("83").unwrap_err().to_string(), "Service web does not have a service port 83");
    }
}
