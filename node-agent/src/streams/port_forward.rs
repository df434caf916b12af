//! Port-forward: connections from a client to ports of a pod, which are made inside the pod, where `localhost` is its
//! own.

use std::{io, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    ConnectError, PodTargets,
    half_closed::{DirectionProgress, until_quiet},
    idle::LastActivity,
    spdy::Gone,
};

/// The pod that a client forwards to, in one session.
pub struct Forwarding {
    /// Where pods are looked up, for each connection anew.
    pub targets: Arc<dyn PodTargets>,
    /// The pod's.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's, as errors name it.
    pub uid: String,
    /// Of the session.
    pub activity: LastActivity,
    /// Between two heartbeats to the client.
    pub heartbeat_interval: Duration,
}

/// The way back to the client of one connection.
#[async_trait::async_trait]
pub trait ToClient: Send + Sync {
    /// Sends bytes; waits where the client is slow.
    async fn write(&self, bytes: Bytes) -> Result<(), Gone>;

    /// Says that nothing more comes.
    async fn finish(&self) -> Result<(), Gone>;
}

/// There is no connection to the port of a pod. For the client, worded as the kubelet's.
#[derive(Debug, thiserror::Error)]
#[error("error forwarding port {port} to pod {pod}, uid {uid}: {error}")]
pub struct ForwardError {
    /// The port.
    pub port: u16,
    /// The pod's name.
    pub pod: String,
    /// The pod's.
    pub uid: String,
    /// Why there is none.
    pub error: ConnectError,
}

/// Of bytes that are read at a time.
const READ: usize = 32 * 1024;
/// Once the pod has sent all: how long a client may be quiet before the connection ends. It need not say that it has
/// sent all, too: older kubectls wait for the end of their stream for errors first, which comes after this. Source: the
/// second that containerd's `portForward` gives either side.
const QUIET_AFTER_POD: Duration = Duration::from_secs(1);

impl Forwarding {
    /// Connects to `port`, and copies both ways until both have ended, or the pod has and the client is quiet. A
    /// connection that breaks off later is no error.
    pub async fn forward(
        &self,
        port: u16,
        from_client: impl Stream<Item: AsRef<[u8]>> + Unpin,
        to_client: &dyn ToClient,
    ) -> Result<(), ForwardError> {
        let connected = self.targets.connect(&self.namespace, &self.pod, port).await;
        let refused = |error| ForwardError { port, pod: self.pod.clone(), uid: self.uid.clone(), error };
        let pod = connected.map_err(refused)?;
        if let Err(error) = self.copy(pod, from_client, to_client).await {
            tracing::debug!(%error, pod = self.pod, port, "a forwarded connection broke off");
            // A client that is gone does not wait for the end.
            to_client.finish().await.ok();
        }
        Ok(())
    }

    async fn copy(
        &self,
        pod: TcpStream,
        mut from_client: impl Stream<Item: AsRef<[u8]>> + Unpin,
        to_client: &dyn ToClient,
    ) -> io::Result<()> {
        let (mut from_pod, mut to_pod) = pod.into_split();
        let progress = DirectionProgress::default();
        let mut up = pin!(async {
            while let Some(bytes) = from_client.next().await {
                self.activity.touch();
                progress.write(to_pod.write_all(bytes.as_ref())).await?;
                self.activity.touch();
            }
            to_pod.shutdown().await
        });
        let down = async {
            let mut buffer = BytesMut::with_capacity(READ);
            while from_pod.read_buf(&mut buffer).await? > 0 {
                self.activity.touch();
                to_client.write(buffer.split().freeze()).await.map_err(io::Error::other)?;
                self.activity.touch();
                buffer.reserve(READ);
            }
            to_client.finish().await.map_err(io::Error::other)
        };
        let mut down = pin!(down);
        tokio::select! {
            sent = &mut up => {
                sent?;
                return down.await;
            }
            received = &mut down => received?,
        }
        // A pod that takes its time to read is waited for, but not for as long as the session is in use.
        until_quiet(up, &progress, QUIET_AFTER_POD).await.unwrap_or(Ok(()))
    }
}
