//! Two connections made one after both have switched protocols: bytes go through as they come, until either end closes.

use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy, split};

/// How long the last bytes may take to be sent after one end has closed.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// Joins the client's connection to the server's, once both have switched.
pub async fn splice(client: OnUpgrade, server: OnUpgrade) {
    match tokio::try_join!(client, server) {
        Ok((client, server)) => exchange(client, server).await,
        Err(error) => tracing::debug!(%error, "a connection did not switch protocols"),
    }
}

async fn exchange(client: Upgraded, server: Upgraded) {
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_server, mut to_server) = split(TokioIo::new(server));
    // As in Kubernetes, the end of one direction ends both.
    let ended = tokio::select! {
        ended = copy(&mut from_client, &mut to_server) => ended,
        ended = copy(&mut from_server, &mut to_client) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an upgraded connection broke off");
    }
    // A client that still sends is read from until it closes: to close before it does would have the kernel reset the
    // connection, and throw away the last bytes of the answer.
    let client_closed = async {
        to_client.shutdown().await?;
        copy(&mut from_client, &mut tokio::io::sink()).await.map(drop)
    };
    let closed = async { tokio::join!(client_closed, to_server.shutdown()) };
    if let Ok((Err(error), _) | (_, Err(error))) = tokio::time::timeout(LAST_BYTES, closed).await {
        tracing::debug!(%error, "an upgraded connection could not be closed");
    }
}
