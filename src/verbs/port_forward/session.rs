//! All connections in one session: SPDY in a WebSocket, as kubectl does since 1.31 (KEP-4006).
//!
//! A local client that reads slowly holds up the session once its queue is full, and with it the other connections: the
//! protocol, as Kubernetes speaks it, has no windows for single streams.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use fairlead_node_agent::{
    spdy::{ClientConnection, Gone},
    tunnel::Tunnel,
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_tungstenite::WebSocketStream;

use super::{
    connection, failed,
    listener::{self, LocalPort},
};

/// Between two heartbeats. Source: `PingPeriod` of client-go.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// How long local clients may take to read what had come before a session ended.
const DRAINED_WITHIN: Duration = Duration::from_secs(2);

/// Forwards what connects, until the session ends: then as an error, in kubectl's words.
///
/// kubectl ends the session with the first connection that fails, so that it does not outlive its pod. Here one that
/// fails is only told, since a program that does not listen yet may do so later; but the session ends if the pod
/// `is_gone`.
pub async fn run<I>(
    socket: WebSocketStream<I>,
    ports: Vec<LocalPort>,
    is_gone: impl AsyncFn() -> bool,
) -> anyhow::Result<()>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ClientConnection { opener, closer, driver } = ClientConnection::new(Tunnel::new(socket));
    let opener = Arc::new(opener);
    // Tasks of their own: they go on while this one waits, and end with it.
    let (mut driving, mut connections) = (JoinSet::new(), JoinSet::new());
    driving.spawn(driver);
    let mut accepting = listener::accept(ports);
    let mut checks = FuturesUnordered::new();
    let mut heartbeats = tokio::time::interval(HEARTBEAT_INTERVAL);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut requests = 0_u64..;
    loop {
        tokio::select! {
            _ = driving.join_next() => break,
            _ = heartbeats.tick() => if closer.heartbeat() == Err(Gone) {
                break;
            },
            Some(gone) = checks.next() => if gone {
                break;
            },
            Some((client, forward)) = accepting.next() => {
                let (opener, request) = (opener.clone(), requests.next().unwrap_or_default());
                let forwarded = async move { connection::forward(&opener, request, forward.remote, client).await };
                connections.spawn(async move { (forward, forwarded.await) });
            }
            Some(ended) = connections.join_next() => {
                let (forward, ended) = ended.context("a connection's task ended early")?;
                if let Err(error) = ended {
                    eprintln!("{}", failed(forward.local, forward.remote, &error));
                    if checks.is_empty() {
                        checks.push(is_gone());
                    }
                }
            }
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAINED_WITHIN, drained).await.is_err() {
        tracing::debug!("local clients did not read all that had come");
    }
    bail!("lost connection to pod")
}
