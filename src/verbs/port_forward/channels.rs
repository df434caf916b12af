//! A WebSocket for each connection: `v4.channel.k8s.io`, for servers that do not know sessions (Kubernetes before
//! 1.31).

use std::{pin::pin, time::Duration};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use fairlead_node_agent::half_closed::{DirectionProgress, until_quiet};
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    failed,
    listener::{self, LocalPort},
};
use crate::{
    cluster::{Cluster, Socket, with_query},
    verbs::remote::PodTarget,
};

/// The protocol of one connection to one port: two channels.
pub const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
/// Bytes of a local connection that are sent at a time.
const READ: usize = 32 * 1024;

/// Forwards what connects, until the pod `is_gone`: then as an error, in kubectl's words.
///
/// A connection that fails, or for which no WebSocket can be opened, is only told: kubectl, too, goes on where it
/// cannot open the streams of a connection. kubectl sees that its pod is lost when its session ends; here no connection
/// may be there that could end, so that it is looked for after each failure.
pub async fn run(
    cluster: &Cluster,
    pod: &PodTarget,
    ports: Vec<LocalPort>,
    is_gone: impl AsyncFn() -> bool,
) -> anyhow::Result<()> {
    let mut accepting = listener::accept(ports);
    // Beside one another: one that takes long holds up nobody else.
    let mut dials = FuturesUnordered::new();
    let mut connections = JoinSet::new();
    let mut checks = FuturesUnordered::new();
    loop {
        let (forward, error) = tokio::select! {
            Some((client, forward)) = accepting.next() => {
                dials.push(async move { (client, forward, dial(cluster, pod, forward.remote).await) });
                continue;
            }
            Some((client, forward, dialled)) = dials.next() => match dialled {
                Ok(socket) => {
                    connections.spawn(async move { (forward, copy(client, socket).await) });
                    continue;
                }
                Err(error) => (forward, error),
            },
            Some(ended) = connections.join_next() => match ended.context("a connection's task ended early")? {
                (_, Ok(())) => continue,
                (forward, Err(error)) => (forward, error),
            },
            Some(gone) = checks.next() => match gone {
                true => bail!("lost connection to pod"),
                false => continue,
            },
            else => return Ok(()),
        };
        eprintln!("{}", failed(forward.local, forward.remote, &error));
        if checks.is_empty() {
            checks.push(is_gone());
        }
    }
}

async fn dial(cluster: &Cluster, pod: &PodTarget, port: u16) -> anyhow::Result<Socket> {
    let path = with_query(&format!("{}/portforward", pod.path), &[("ports", &port.to_string())]);
    cluster.open_socket(&path, PROTOCOL).await
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
    let received = DirectionProgress::default();
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
                    received.write(to_client.write_all(&bytes)).await?;
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
    until_quiet(down, &received, QUIET).await.unwrap_or(Ok(()))
}
