//! One connection of a session: a stream for its bytes, and one on which the server tells errors. They belong together
//! by their header `requestid`.
//!
//! Source: `handleConnection` of client-go's `portforward`.

use std::io;

use anyhow::bail;
use bytes::BytesMut;
use fairlead_node_agent::spdy::{Headers, OpenError, Opener, Stream, StreamReader, StreamWriter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
};

/// Bytes of a local connection that are sent at a time.
const READ: usize = 32 * 1024;
/// Of what a server tells that is shown.
const LONGEST_ERROR: usize = 16 * 1024;

/// Forwards a local connection until both sides have ended it, or either has broken it off. Only what the server tells
/// is an error: a connection that breaks off is none, nor one that ends with its session.
pub async fn forward(opener: &Opener, request: u64, remote: u16, client: TcpStream) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let Some((error, data)) = open(opener, request, remote).await? else { return Ok(()) };
    // Nothing is sent on it; gone already, it needs no end.
    error.writer.finish().await.ok();
    let (tell_over, over) = oneshot::channel();
    let copying = copy(client, data, over);
    let telling = async {
        let text = read_error(error.reader).await;
        // A connection that has ended needs not be told.
        tell_over.send(()).ok();
        text
    };
    let ((), text) = tokio::join!(copying, telling);
    if !text.is_empty() {
        bail!("{text}");
    }
    Ok(())
}

/// Opens the stream for errors and the one for data. `None` where the session has ended.
async fn open(opener: &Opener, request: u64, remote: u16) -> Result<Option<(Stream, Stream)>, OpenError> {
    let (request, remote) = (request.to_string(), remote.to_string());
    let headers = |kind: &str| -> Headers {
        [("streamtype", kind), ("port", &remote), ("requestid", &request)].into_iter().collect()
    };
    let opening = async {
        let error = opener.open(headers("error")).await?;
        let data = opener.open(headers("data")).await?;
        match tokio::join!(error.accepted(), data.accepted()) {
            (Ok(error), Ok(data)) => Ok(Some((error, data))),
            (Ok(other), Err(refused)) | (Err(refused), Ok(other)) => {
                other.abandon();
                Err(refused)
            }
            (Err(refused), Err(_)) => Err(refused),
        }
    };
    match opening.await {
        Err(OpenError::Gone(_)) => Ok(None),
        opened => opened,
    }
}

/// Copies both ways, each to its end. Where the server is done with the connection (`over`) nothing more is sent.
async fn copy(client: TcpStream, data: Stream, over: oneshot::Receiver<()>) {
    let (from_client, to_client) = client.into_split();
    let Stream { reader, writer, .. } = data;
    let up = async {
        tokio::select! {
            sent = send(from_client, &writer) => sent,
            () = writer.gone() => Ok(()),
            _ = over => Ok(()),
        }
    };
    // With this statement the reader is gone: what is still queued in it no longer holds up the session.
    let copied = tokio::try_join!(up, receive(reader, to_client));
    if let Err(error) = copied {
        tracing::debug!(%error, "a local client broke off");
        // Gone already, it needs no reset.
        writer.reset().await.ok();
    }
}

/// Sends what the local client says, and that it has said all.
async fn send(mut from: OwnedReadHalf, to: &StreamWriter) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ);
    while from.read_buf(&mut buffer).await? > 0 {
        if to.write(buffer.split().freeze()).await.is_err() {
            return Ok(());
        }
        buffer.reserve(READ);
    }
    // The stream may be gone meanwhile.
    to.finish().await.ok();
    Ok(())
}

/// Passes on what the pod answers, and that it has answered all.
async fn receive(mut from: StreamReader, mut to: OwnedWriteHalf) -> io::Result<()> {
    while let Some(chunk) = from.next().await {
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}

/// What the server tells until it is done with the connection; empty where that went well.
async fn read_error(mut from: StreamReader) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = from.next().await {
        let room = LONGEST_ERROR.saturating_sub(text.len());
        text.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    String::from_utf8_lossy(&text).into_owned()
}
