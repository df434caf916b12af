//! The server's side of a session: an agent with one pod, whose ports say what their programs do.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use fairlead_node_agent::{
    spdy::{Connection, Stream},
    tunnel::Tunnel,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpListener,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::super::listener::{Forward, LocalPort};

/// Answers once its client has sent all: with how many bytes that were.
pub const COUNT: u16 = 1;
/// Nobody listens.
pub const REFUSED: u16 = 2;
/// Sends until it is held up.
pub const FLOOD: u16 = 3;
/// Sends half an answer.
pub const HALF: u16 = 4;
/// Has answered all, and reads on.
pub const READER: u16 = 5;

/// What a program of the pod tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// As many bytes were taken of it, and then no more.
    HeldUp(usize),
    /// The stream was reset.
    Reset,
    /// As many bytes came until the end.
    Read(usize),
}

/// A session with an agent, which ends when the task is aborted.
pub async fn session() -> (WebSocketStream<DuplexStream>, UnboundedReceiver<Seen>, JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (tell, seen) = mpsc::unbounded_channel();
    let agent = tokio::spawn(serve(server, tell));
    (WebSocketStream::from_raw_socket(client, Role::Client, None).await, seen, agent)
}

/// A port of this host that leads to a port of the pod.
pub async fn local_port(remote: u16) -> (LocalPort, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (LocalPort { listener, forward: Forward { local: address.port(), remote } }, address)
}

/// Serves a session over an upgraded connection.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, tell: UnboundedSender<Seen>) {
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    let Connection { mut incoming, closer: _closer, driver } = Connection::new(Tunnel::new(socket), 1000, |_| true);
    let serving = async {
        let mut errors = HashMap::new();
        while let Some(stream) = incoming.recv().await {
            let request = stream.headers.get("requestid").to_owned();
            match stream.headers.get("streamtype") {
                "error" => {
                    errors.insert(request, stream);
                }
                _ => {
                    let error = errors.remove(&request).expect("the stream for errors comes first");
                    assert_eq!(error.headers.get("port"), stream.headers.get("port"));
                    tokio::spawn(program(error, stream, tell.clone()));
                }
            }
        }
    };
    tokio::join!(driver, serving);
}

async fn program(mut error: Stream, mut data: Stream, tell: UnboundedSender<Seen>) {
    assert!(error.reader.next().await.is_none(), "nothing is sent on the stream for errors");
    match data.headers.get("port").parse().unwrap() {
        COUNT => {
            let count = read(&mut data).await;
            // A connection that broke off is not answered.
            data.writer.write(count.to_string().into()).await.ok();
        }
        REFUSED => {
            error.writer.write(Bytes::from_static(b"connection refused\x1b[2J")).await.unwrap();
            data.writer.reset().await.unwrap();
        }
        FLOOD => {
            let (piece, mut sent) = (Bytes::from(vec![0; 16 * 1024]), 0);
            let patience = Duration::from_millis(300);
            while let Ok(Ok(())) = tokio::time::timeout(patience, data.writer.write(piece.clone())).await {
                sent += piece.len();
            }
            tell.send(Seen::HeldUp(sent)).unwrap();
            data.writer.gone().await;
            tell.send(Seen::Reset).unwrap();
        }
        HALF => {
            data.writer.write(Bytes::from_static(b"half an ans")).await.unwrap();
            data.writer.gone().await;
        }
        READER => {
            data.writer.finish().await.unwrap();
            let count = read(&mut data).await;
            tell.send(Seen::Read(count)).unwrap();
        }
        other => panic!("port {other}"),
    }
    data.writer.finish().await.ok();
    error.writer.finish().await.ok();
}

async fn read(data: &mut Stream) -> usize {
    let mut count = 0;
    while let Some(chunk) = data.reader.next().await {
        count += chunk.len();
    }
    count
}
