//! A WebSocket whose messages, one behind the other, are a connection of another protocol. Either side's.
//!
//! Source: `TunnelingConnection` of client-go.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};

/// The WebSocket protocol of port-forwards, which go through a tunnel since Kubernetes 1.31.
pub const PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";

/// The connection inside the messages.
pub struct Tunnel<I> {
    socket: WebSocketStream<I>,
    /// What is left of the latest message.
    read: Bytes,
}

impl<I> Tunnel<I> {
    /// Inside of `socket`.
    pub fn new(socket: WebSocketStream<I>) -> Self {
        Self { socket, read: Bytes::new() }
    }
}

/// Of a message that is sent.
const LARGEST_SENT: usize = 64 * 1024;

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.read = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::other("a message of text in a tunnel")));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.read.len().min(into.remaining());
        into.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(to_io)?;
        let part = &bytes[..bytes.len().min(LARGEST_SENT)];
        Pin::new(&mut self.socket).start_send(Message::binary(part.to_vec())).map_err(to_io)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(to_io)
    }
}

#[cfg(test)]
mod tests {
    use futures::SinkExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn messages_are_one_stream_of_bytes_both_ways() {
        let (server, client) = tokio::io::duplex(1000);
        let mut tunnel = Tunnel::new(WebSocketStream::from_raw_socket(server, Role::Server, None).await);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        for part in ["he", "", "llo"] {
            client.send(Message::binary(part)).await.unwrap();
        }
        client.send(Message::Ping(Bytes::new())).await.unwrap();
        let mut text = [0; 5];
        tunnel.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
        let sent = vec![3; 200_000];
        let writing = async {
            tunnel.write_all(&sent).await.unwrap();
            tunnel.flush().await.unwrap();
            tunnel.shutdown().await.unwrap();
            // A client waits for the server to close.
            drop(tunnel);
        };
        let reading = async {
            let mut got = Vec::new();
            while let Some(Ok(message)) = futures::StreamExt::next(&mut client).await {
                if let Message::Binary(part) = message {
                    got.extend_from_slice(&part);
                }
            }
            got
        };
        let ((), got) = tokio::join!(writing, reading);
        assert!(got == sent, "{} bytes", got.len());
    }

    #[tokio::test]
    async fn text_is_no_part_of_a_tunnel() {
        let (server, client) = tokio::io::duplex(1000);
        let mut tunnel = Tunnel::new(WebSocketStream::from_raw_socket(server, Role::Server, None).await);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        client.send(Message::text("hello")).await.unwrap();
        tunnel.read_u8().await.unwrap_err();
    }
}
