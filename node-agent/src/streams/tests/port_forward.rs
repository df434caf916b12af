//! Port-forward in all its protocols.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    super::{
        spdy::{
            frame::{Frame, ResetStatus},
            test_client::TestClient,
        },
        tunnel::Tunnel,
    },
    lab::{Lab, PATIENCE, send_until_held_up, spdy_request, websocket_request},
};

const PATH: &str = "/portForward/default/web";
const SPDY: &str = "portforward.k8s.io";

/// A server in the pod: sends back what it reads, until its client has sent all.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
                to.shutdown().await.ok();
            });
        }
    });
    port
}

/// A port that nobody listens on.
async fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn open_pair<I>(client: &mut TestClient<I>, first: u32, port: u16, request: &str)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let port = port.to_string();
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", request)];
    client.open(first, &headers("error")).await;
    client.finish(first).await;
    client.open(first + 2, &headers("data")).await;
}

/// As kubectl 1.27, which ends its side only after the stream for errors has ended.
#[tokio::test]
async fn a_pod_that_ends_a_connection_ends_it_for_a_client_that_has_not() {
    let lab = Lab::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = lab.spdy(PATH, SPDY).await;
    open_pair(&mut client, 1, port, "0").await;
    let (pod, _) = listener.accept().await.unwrap();
    drop(pod);
    let mut others = Vec::new();
    client.read_to_end(3, &mut others).await;
    client.read_to_end(1, &mut others).await;
    drop(client);
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn a_pod_that_has_sent_all_still_gets_what_a_client_sends() {
    let lab = Lab::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = lab.spdy(PATH, SPDY).await;
    open_pair(&mut client, 1, port, "0").await;
    let (mut pod, _) = listener.accept().await.unwrap();
    pod.shutdown().await.unwrap();
    let mut others = Vec::new();
    client.read_to_end(3, &mut others).await;
    client.write(3, "late").await;
    client.finish(3).await;
    let mut got = Vec::new();
    pod.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"late");
    client.read_to_end(1, &mut others).await;
}

#[tokio::test]
async fn many_connections_go_at_once_and_each_ends_by_itself() {
    let (lab, port) = (Lab::new().await, echo().await);
    let mut client = lab.spdy(PATH, SPDY).await;
    for connection in 0..20 {
        open_pair(&mut client, connection * 4 + 1, port, &connection.to_string()).await;
    }
    for connection in 0..20 {
        client.write(connection * 4 + 3, format!("hello {connection}")).await;
        client.finish(connection * 4 + 3).await;
    }
    let (mut texts, mut ends) = (vec![Vec::new(); 20], 0);
    while ends < 40 {
        match client.next().await.unwrap() {
            Frame::Data { stream, fin, bytes } => {
                texts[usize::try_from(stream / 4).unwrap()].extend_from_slice(&bytes);
                ends += u32::from(fin);
            }
            other => panic!("{other:?}"),
        }
    }
    for (connection, text) in texts.iter().enumerate() {
        assert_eq!(*text, format!("hello {connection}").into_bytes());
    }
    drop(client);
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn a_port_that_refuses_is_told_on_the_stream_of_errors() {
    let (lab, port) = (Lab::new().await, closed().await);
    let mut client = lab.spdy(PATH, SPDY).await;
    open_pair(&mut client, 1, port, "0").await;
    let error = match client.next().await {
        Some(Frame::Data { stream: 1, bytes, .. }) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    let reset = Frame::RstStream { stream: 3, status: ResetStatus::CANCEL };
    assert_eq!(client.next().await, Some(reset));
    let wanted = format!("error forwarding port {port} to pod web, uid uid-1: failed to connect to localhost:{port}");
    assert!(error.starts_with(&wanted) && error.contains("connection refused"), "{error}");
    // The next connection of the same client may go.
    assert!(client.next().await.is_some_and(|frame| matches!(frame, Frame::Data { stream: 1, fin: true, .. })));
    let port = echo().await;
    open_pair(&mut client, 5, port, "1").await;
    client.write(7, "x").await;
    while !matches!(client.next().await.unwrap(), Frame::Data { stream: 7, bytes, .. } if bytes == "x") {}
}

#[tokio::test]
async fn a_reset_closes_the_connection_to_the_pod() {
    let lab = Lab::new().await;
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = lab.spdy(PATH, SPDY).await;
    open_pair(&mut client, 1, pod.local_addr().unwrap().port(), "0").await;
    let (mut server, _) = pod.accept().await.unwrap();
    client.send(Frame::RstStream { stream: 3, status: ResetStatus::CANCEL }).await;
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, server.read_to_end(&mut rest)).await.expect("the pod sees the end").ok();
    assert!(client.read_to_end(1, &mut Vec::new()).await.is_empty(), "the stream of errors ends without one");
}

#[tokio::test]
async fn streams_that_are_reset_before_they_are_paired_are_forgotten_at_once() {
    let (lab, port) = (Lab::new().await, echo().await);
    let mut client = lab.spdy(PATH, SPDY).await;
    // More than there may be at a time.
    for stream in (1..6000).step_by(2) {
        let request = stream.to_string();
        client.open(stream, &[("streamtype", "error"), ("port", "80"), ("requestid", &request)]).await;
        client.send(Frame::RstStream { stream, status: ResetStatus::CANCEL }).await;
    }
    open_pair(&mut client, 7001, port, "0").await;
    client.write(7003, "x").await;
    while !matches!(client.next().await.unwrap(), Frame::Data { stream: 7003, bytes, .. } if bytes == "x") {}
}

#[tokio::test]
async fn the_end_of_a_client_closes_its_connections() {
    let lab = Lab::new().await;
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = lab.spdy(PATH, SPDY).await;
    open_pair(&mut client, 1, pod.local_addr().unwrap().port(), "0").await;
    let (mut server, _) = pod.accept().await.unwrap();
    drop(client);
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, server.read_to_end(&mut rest)).await.expect("the pod sees the end").ok();
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn a_client_that_goes_away_while_the_pod_reads_nothing_is_noticed() {
    let lab = Lab::with_heartbeat_interval(Duration::from_millis(20)).await;
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = pod.local_addr().unwrap().port();
    let mut client = lab.spdy(PATH, SPDY).await;
    for (stream, kind) in [(1, "error"), (3, "data")] {
        client.send_open(stream, &[("streamtype", kind), ("port", &port.to_string()), ("requestid", "0")]).await;
    }
    let _accepted = pod.accept().await.unwrap();
    send_until_held_up(async || client.write(3, vec![0; 100_000]).await).await;
    drop(client);
    lab.wait_for_nothing_left().await;
    let mut socket = lab.websocket(&format!("{PATH}?port={port}"), "v4.channel.k8s.io").await;
    let _accepted = pod.accept().await.unwrap();
    send_until_held_up(async || socket.send(Message::binary(vec![0; 100_000])).await.unwrap()).await;
    drop(socket);
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn streams_without_a_port_or_a_kind_are_reset() {
    let lab = Lab::new().await;
    let mut client = lab.spdy(PATH, SPDY).await;
    let long = "1".repeat(65);
    for (number, headers) in (1u32..).step_by(2).zip([
        &[("streamtype", "data")][..],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "70000")],
        &[("streamtype", "stdin"), ("port", "80")],
        &[("streamtype", "data"), ("port", "80"), ("requestid", &long)],
    ]) {
        client.send_open(number, headers).await;
        let reset = Frame::RstStream { stream: number, status: ResetStatus::CANCEL };
        assert_eq!(client.next().await, Some(reset));
    }
}

#[tokio::test]
async fn a_tunnel_in_a_websocket_is_the_same() {
    let (lab, port) = (Lab::new().await, echo().await);
    let socket = lab.websocket(PATH, "SPDY/3.1+portforward.k8s.io").await;
    let mut client = TestClient::new(Tunnel::new(socket));
    open_pair(&mut client, 1, port, "0").await;
    let text = vec![4; 300_000];
    for part in text.chunks(30_000) {
        client.write(3, part.to_vec()).await;
    }
    client.finish(3).await;
    assert!(client.read_to_end(3, &mut Vec::new()).await == text);
    drop(client);
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn channels_of_a_websocket_are_ports() {
    let (lab, one, two) = (Lab::new().await, echo().await, closed().await);
    let mut socket = lab.websocket(&format!("{PATH}?port={one},{two}"), "v4.channel.k8s.io").await;
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    let mut channels = vec![Vec::new(); 4];
    while !(channels[0].len() == 7 && channels[3].ends_with(b"refused")) {
        let Message::Binary(message) = socket.next().await.unwrap().unwrap() else { continue };
        channels[usize::from(message[0])].extend_from_slice(&message[1..]);
    }
    assert_eq!((&channels[0][..2], &channels[0][2..]), (&one.to_le_bytes()[..], &b"hello"[..]));
    assert_eq!(channels[1], one.to_le_bytes());
    assert_eq!(channels[2], two.to_le_bytes());
    drop(socket);
    lab.wait_for_nothing_left().await;
    let mut socket = lab.websocket(&format!("{PATH}?port={one}"), "v4.base64.channel.k8s.io").await;
    socket.send(Message::text("0aGk=")).await.unwrap();
    let mut texts = Vec::new();
    while !texts.contains(&"0aGk=".to_owned()) {
        texts.push(socket.next().await.unwrap().unwrap().into_text().unwrap().to_string());
    }
}

#[tokio::test]
async fn a_client_of_channels_is_told_when_the_pod_has_sent_all() {
    let lab = Lab::new().await;
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = pod.local_addr().unwrap().port();
    let mut socket = lab.websocket(&format!("{PATH}?port={port}"), "v4.channel.k8s.io").await;
    let (mut server, _) = pod.accept().await.unwrap();
    server.write_all(b"x").await.unwrap();
    drop(server);
    let mut bytes = Vec::new();
    let told = async {
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(message) if message[0] == 0 => bytes.extend_from_slice(&message[1..]),
                Message::Close(_) => break,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the session ends");
    assert_eq!((&bytes[..2], &bytes[2..]), (&port.to_le_bytes()[..], &b"x"[..]));
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn what_cannot_be_forwarded_is_refused_before_the_connection_is_made() {
    let lab = Lab::new().await;
    let text = async |request| {
        let (status, text) = lab.refusal(request).await;
        format!("{} {text}", status.as_u16())
    };
    assert_eq!(text(spdy_request("/portForward/default/gone", SPDY)).await, "404 pod does not exist");
    let waiting = spdy_request("/portForward/default/waiting", SPDY);
    assert_eq!(text(waiting).await, "500 pod not found (\"waiting_default\")");
    let no_ports = websocket_request(PATH, "v4.channel.k8s.io");
    assert_eq!(text(no_ports).await, "400 query parameter \"port\" is required");
}

#[tokio::test]
async fn forwards_end_with_the_agent() {
    let lab = Lab::new().await;
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = lab.spdy(PATH, SPDY).await;
    open_pair(&mut client, 1, pod.local_addr().unwrap().port(), "0").await;
    let (mut server, _): (TcpStream, _) = pod.accept().await.unwrap();
    lab.streams.shutdown().await;
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_or(0), 0);
    server.write_all(b"x").await.ok();
    assert!(lab.streams.sessions.is_empty());
}
