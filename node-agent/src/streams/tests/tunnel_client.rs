//! Port-forward with the client that `fairlead port-forward` has: SPDY in a WebSocket, both sides fairlead's.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    super::{
        spdy::{ClientConnection, Closer, Headers, Opener, Stream},
        tunnel::{PORT_FORWARD, Tunnel},
    },
    lab::{Lab, PATIENCE},
};

const PATH: &str = "/portForward/default/web";

/// A server in the pod that answers once its client has sent all: with how many bytes that were.
async fn count() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = Vec::new();
                client.read_to_end(&mut read).await.unwrap();
                client.write_all(read.len().to_string().as_bytes()).await.unwrap();
            });
        }
    });
    port
}

async fn client(lab: &Lab) -> (Opener, Closer) {
    let socket = lab.websocket(PATH, PORT_FORWARD).await;
    let ClientConnection { opener, closer, driver } = ClientConnection::new(Tunnel::new(socket));
    tokio::spawn(driver);
    (opener, closer)
}

/// The streams for errors and for data of one connection.
async fn pair(opener: &Opener, port: u16, request: usize) -> (Stream, Stream) {
    let (port, request) = (port.to_string(), request.to_string());
    let mut streams = Vec::new();
    for kind in ["error", "data"] {
        let headers: Headers = [("streamtype", kind), ("port", &port), ("requestid", &request)].into_iter().collect();
        streams.push(opener.open(headers).await.unwrap());
    }
    let accepted = join_all(streams.into_iter().map(|stream| stream.accepted())).await;
    let [error, data] = <[_; 2]>::try_from(accepted).unwrap_or_else(|_| unreachable!()).map(Result::unwrap);
    error.writer.finish().await.unwrap();
    (error, data)
}

async fn read_to_end(mut stream: Stream) -> String {
    let mut read = Vec::new();
    while let Some(chunk) = stream.reader.next().await {
        read.extend_from_slice(&chunk);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn the_pod_gets_the_end_of_what_a_client_sends_and_the_client_its_answer() {
    let (lab, port) = (Lab::new().await, count().await);
    let (opener, closer) = client(&lab).await;
    let connections = (0..50).map(async |number| {
        let (error, data) = pair(&opener, port, number).await;
        for _ in 0..10 {
            data.writer.write(Bytes::from(vec![0; 1000 * number])).await.unwrap();
        }
        data.writer.finish().await.unwrap();
        assert_eq!(read_to_end(data).await, (10_000 * number).to_string());
        assert_eq!(read_to_end(error).await, "");
    });
    tokio::time::timeout(PATIENCE, join_all(connections)).await.expect("all are answered");
    closer.close().await.unwrap();
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn a_refused_port_is_told_and_the_session_goes_on() {
    let (lab, port) = (Lab::new().await, count().await);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (opener, _closer) = client(&lab).await;
    let (error, data) = pair(&opener, closed, 0).await;
    assert_eq!(read_to_end(data).await, "");
    let told = read_to_end(error).await;
    assert!(told.contains("connection refused"), "{told}");
    let (_error, data) = pair(&opener, port, 1).await;
    data.writer.finish().await.unwrap();
    assert_eq!(read_to_end(data).await, "0");
}

#[tokio::test]
async fn streams_and_the_driver_end_with_the_agent() {
    let lab = Lab::with_heartbeat_interval(Duration::from_millis(5)).await;
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = lab.websocket(PATH, PORT_FORWARD).await;
    let ClientConnection { opener, closer: _closer, driver } = ClientConnection::new(Tunnel::new(socket));
    let driver = tokio::spawn(driver);
    let (error, data) = pair(&opener, pod.local_addr().unwrap().port(), 0).await;
    let (mut server, _) = pod.accept().await.unwrap();
    server.write_all(b"half an ans").await.unwrap();
    let mut data = data;
    assert_eq!(&data.reader.next().await.unwrap()[..], b"half an ans");
    lab.streams.shutdown().await;
    data.writer.gone().await;
    assert!(data.reader.next().await.is_none());
    assert_eq!(read_to_end(error).await, "");
    driver.await.unwrap();
}
