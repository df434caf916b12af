//! Clients that send their heads and bodies a byte at a time.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use super::victim::{Connector, Victim, Who};
use crate::kit::Result;

/// Between two bytes: the attack itself.
const PACE: Duration = Duration::from_millis(200);
const STRANGERS: usize = 400;
const HEADS: usize = 100;
const BODIES: usize = 100;
/// A body has 34 s to come, a head 120 s, of which strangers get less where others come.
const LONGEST_BODY: Duration = Duration::from_secs(60);
/// How long heads go on.
const HEAD_BYTES: usize = 100;

/// Strangers beyond what one address may hold, and a user who is known: heads without end, and bodies that are
/// announced and hardly come. The bodies end by the server's word.
pub async fn heads_and_bodies(victim: Victim) -> Result {
    let (strangers, joe) = (victim.connector(Who::Stranger, "http/1.1")?, victim.connector(Who::Joe, "http/1.1")?);
    let attack = async {
        let mut clients = JoinSet::new();
        for _ in 0..STRANGERS {
            clients.spawn(slow_head(strangers.clone()));
        }
        for _ in 0..HEADS {
            clients.spawn(slow_head(joe.clone()));
        }
        for _ in 0..BODIES {
            clients.spawn(slow_body(joe.clone()));
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(())
    };
    victim.endures("slow heads and bodies", 200, attack).await
}

/// Sends until it has sent enough, or the connection is cut to make room for others.
async fn slow_head(connector: Connector) -> Result {
    // One of so many strangers may be cut in its handshake already.
    let Ok(mut stream) = connector.connect().await else { return Ok(()) };
    if stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: server\r\nlong: ").await.is_err() {
        return Ok(());
    }
    let mut pace = tokio::time::interval(PACE);
    for _ in 0..HEAD_BYTES {
        pace.tick().await;
        if stream.write_all(b"x").await.is_err() || stream.flush().await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends until the server has had enough of it.
async fn slow_body(connector: Connector) -> Result {
    let mut stream = connector.connect().await?;
    let head = "POST /api/v1/namespaces/own/configmaps HTTP/1.1\r\nhost: server\r\ncontent-type: application/json\r\n\
                content-length: 3000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let sending = async {
        let mut pace = tokio::time::interval(PACE);
        loop {
            pace.tick().await;
            if writing.write_all(b" ").await.is_err() || writing.flush().await.is_err() {
                return std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = [0; 12];
    let refused = async { reading.read_exact(&mut answer).await.map(drop) };
    tokio::select! {
        () = sending => Ok(()),
        refused = tokio::time::timeout(LONGEST_BODY, refused) => {
            // Cut without a word is as good.
            if refused.map_err(|_| "a body may take without end")?.is_ok() && !matches!(&answer, b"HTTP/1.1 408" | b"HTTP/1.1 504" | b"HTTP/1.1 429") {
                return Err(format!("a slow body: {}", String::from_utf8_lossy(&answer)).into());
            }
            Ok(())
        }
    }
}
