//! Port-forward over SPDY: for each connection the client opens two streams, one for its bytes and one for errors,
//! which belong together by their header `requestid`.
//!
//! Source: `httpStreamHandler` of `k8s.io/kubelet/pkg/cri/streaming/portforward`.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use super::{
    idle::heartbeats,
    port_forward::{Forwarding, ToClient},
    spdy::{Connection, Gone, Headers, Stream, StreamWriter},
};

/// How long the second stream of a connection may be behind the first. Source: `DefaultStreamCreationTimeout`.
const PAIRED_WITHIN: Duration = Duration::from_secs(30);
/// Two for each connection.
const MOST_STREAMS: usize = 2048;
/// Bytes of a `requestid`: Kubernetes' clients count.
const LONGEST_REQUEST: usize = 64;
const KIND: &str = "streamtype";

#[async_trait::async_trait]
impl ToClient for StreamWriter {
    async fn write(&self, bytes: Bytes) -> Result<(), Gone> {
        self.write(bytes).await
    }

    async fn finish(&self) -> Result<(), Gone> {
        self.finish().await
    }
}

fn port(headers: &Headers) -> Option<u16> {
    headers.get("port").parse().ok().filter(|port| *port > 0)
}

fn is_known(headers: &Headers) -> bool {
    port(headers).is_some()
        && matches!(headers.get(KIND), "data" | "error")
        && headers.get("requestid").len() <= LONGEST_REQUEST
}

/// Which connection a stream belongs to. Old clients do not say; their stream for errors comes before its data.
fn request_of(stream: &Stream) -> String {
    match stream.headers.get("requestid") {
        "" if stream.headers.get(KIND) == "data" => stream.id.saturating_sub(2).to_string(),
        "" => stream.id.to_string(),
        request => request.to_owned(),
    }
}

/// Serves a client until it is gone. With this future everything of it is gone.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static, to: &Forwarding) {
    let Connection { mut incoming, closer, mut driver } = Connection::new(io, MOST_STREAMS, is_known);
    // Connections that wait for their second stream.
    let mut unpaired: HashMap<String, oneshot::Sender<Stream>> = HashMap::new();
    // Each ends with the name of its request.
    let mut connections: FuturesUnordered<BoxFuture<'_, String>> = FuturesUnordered::new();
    let mut heartbeats = heartbeats(to.heartbeat_interval);
    loop {
        tokio::select! {
            () = &mut driver => return,
            _ = heartbeats.tick() => if closer.heartbeat() == Err(Gone) {
                return;
            },
            Some(stream) = incoming.recv() => {
                let request = request_of(&stream);
                // Who does not wait any more gives the stream back: it is the first of another connection.
                let first = match unpaired.remove(&request) {
                    Some(waiting) => waiting.send(stream).err(),
                    None => Some(stream),
                };
                if let Some(first) = first {
                    let (to_second, second) = oneshot::channel();
                    unpaired.insert(request.clone(), to_second);
                    connections.push(Box::pin(async move {
                        pair_and_forward(first, second, &request, to).await;
                        request
                    }));
                }
            }
            Some(ended) = connections.next() => {
                if unpaired.get(&ended).is_some_and(oneshot::Sender::is_closed) {
                    unpaired.remove(&ended);
                }
            }
        }
    }
}

/// One connection, from its first stream on. Without the second it ends soon, and at once when the client resets it.
async fn pair_and_forward(first: Stream, second: oneshot::Receiver<Stream>, request: &str, to: &Forwarding) {
    let second = tokio::select! {
        () = first.writer.gone() => return,
        second = tokio::time::timeout(PAIRED_WITHIN, second) => second,
    };
    let Ok(Ok(second)) = second else {
        tracing::debug!(request, "a client forwards a port with one stream only");
        return reset(first.writer).await;
    };
    match (first.headers.get(KIND), second.headers.get(KIND)) {
        ("data", "error") => connection(first, second, to).await,
        ("error", "data") => connection(second, first, to).await,
        _ => {
            reset(first.writer).await;
            reset(second.writer).await;
        }
    }
}

async fn reset(writer: StreamWriter) {
    // Gone already, it needs no reset.
    writer.reset().await.ok();
}

/// One connection, until both sides have ended it or the client resets it.
async fn connection(data: Stream, error: Stream, to: &Forwarding) {
    let Some(port) = port(&data.headers) else { return };
    let writer = data.writer;
    let from_client = stream::unfold(data.reader, |mut reader| async {
        // It counts as queued until it is written.
        Some((reader.next().await?, reader))
    });
    let forwarded = tokio::select! {
        forwarded = to.forward(port, from_client.boxed(), &writer) => forwarded,
        () = writer.gone() => Ok(()),
    };
    if let Err(refused) = forwarded {
        // Gone meanwhile, the client needs no reason.
        error.writer.write(Bytes::from(refused.to_string())).await.ok();
        reset(writer).await;
    }
    // The client waits for it, also where it has reset the other.
    error.writer.finish().await.ok();
}
