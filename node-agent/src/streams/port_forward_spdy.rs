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
    time::Instant,
};

use super::{
    port_forward::{Forwarding, ToClient},
    spdy::{Connection, Gone, Headers, Stream, StreamWriter},
};
use crate::deadline;

/// How long the second stream of a connection may be behind the first. Source: `DefaultStreamCreationTimeout`.
const PAIRED_WITHIN: Duration = Duration::from_secs(30);
/// Two for each connection.
const MOST_STREAMS: usize = 2048;
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
    port(headers).is_some() && matches!(headers.get(KIND), "data" | "error")
}

/// Which connection a stream belongs to. Old clients do not say; their stream for errors comes before its data.
fn request_of(stream: &Stream) -> String {
    match stream.headers.get("requestid") {
        "" if stream.headers.get(KIND) == "data" => stream.id.saturating_sub(2).to_string(),
        "" => stream.id.to_string(),
        request => request.to_owned(),
    }
}

/// The first stream of a connection.
struct Half {
    stream: Stream,
    deadline: Instant,
}

/// Serves a client until it is gone. With this future everything of it is gone.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static, to: &Forwarding) {
    let Connection { mut incoming, closer: _closer, mut driver } = Connection::new(io, MOST_STREAMS, is_known);
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut connections: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        let earliest = halves.values().map(|half| half.deadline).min();
        let expiry = async {
            match earliest {
                Some(earliest) => tokio::time::sleep_until(earliest).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut driver => return,
            Some(stream) = incoming.recv() => {
                let request = request_of(&stream);
                match halves.remove(&request) {
                    None => {
                        let deadline = deadline::instant_after(Instant::now(), PAIRED_WITHIN);
                        halves.insert(request, Half { stream, deadline });
                    }
                    Some(Half { stream: first, .. }) => match (first.headers.get(KIND), stream.headers.get(KIND)) {
                        ("data", "error") => connections.push(Box::pin(connection(first, stream, to))),
                        ("error", "data") => connections.push(Box::pin(connection(stream, first, to))),
                        _ => connections.extend([first, stream].map(|twice| Box::pin(reset(twice.writer)) as _)),
                    },
                }
            }
            Some(()) = connections.next() => {}
            () = expiry => {
                let now = Instant::now();
                for (request, half) in halves.extract_if(|_, half| half.deadline <= now) {
                    tracing::debug!(request, "a client forwards a port with one stream only");
                    connections.push(Box::pin(reset(half.stream.writer)));
                }
            }
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
        let chunk = reader.next().await?;
        Some((Bytes::clone(&chunk), reader))
    });
    let forwarded = tokio::select! {
        forwarded = to.forward(port, from_client.boxed(), &writer) => forwarded,
        () = writer.gone() => Ok(()),
    };
    if let Err(why) = forwarded {
        // Gone meanwhile, the client needs no reason.
        error.writer.write(Bytes::from(why)).await.ok();
        reset(writer).await;
    }
    // The client waits for it, also where it has reset the other.
    error.writer.finish().await.ok();
}
