//! One connection against a scripted client: what is opened, refused, reset and held up.

use std::time::Duration;

use tokio::io::DuplexStream;

use super::{super::test_client::TestClient, *};

fn connected(most_streams: usize) -> (Connection, TestClient<DuplexStream>) {
    let (server, client) = tokio::io::duplex(4096);
    (Connection::new(server, most_streams, |headers| headers.get("streamtype") != "bad"), TestClient::new(client))
}

const HEADERS: &[(&str, &str)] = &[("streamtype", "data")];

#[tokio::test]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let (Connection { mut incoming, closer, driver }, mut client) = connected(10);
    let driver = tokio::spawn(driver);
    client.open(1, HEADERS).await;
    let mut stream = incoming.recv().await.unwrap();
    assert_eq!((stream.id, stream.headers.get("streamtype")), (1, "data"));
    client.write(1, "ping").await;
    client.finish(1).await;
    assert_eq!(&stream.reader.next().await.unwrap()[..], b"ping");
    assert!(stream.reader.next().await.is_none());
    let long = vec![9; 100_000];
    let writing = async {
        stream.writer.write(long.clone().into()).await.unwrap();
        stream.writer.finish().await.unwrap();
    };
    let (read, ()) = tokio::join!(async { client.read_to_end(1, &mut Vec::new()).await }, writing);
    assert_eq!(read, long);
    closer.close().await.unwrap();
    assert!(matches!(client.next().await, Some(Frame::GoAway { .. })));
    assert!(client.next().await.is_none(), "the server has closed");
    drop(client);
    driver.await.unwrap();
}

#[tokio::test]
async fn a_ping_comes_back_and_an_answer_to_none_does_not() {
    let (connection, mut client) = connected(10);
    tokio::spawn(connection.driver);
    client.send(Frame::Ping(2)).await;
    client.send(Frame::Ping(3)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(3)));
}

#[tokio::test]
async fn streams_that_are_false_or_too_many_are_reset() {
    let (Connection { mut incoming, closer: _closer, driver }, mut client) = connected(2);
    tokio::spawn(driver);
    let reset = |stream, status| Some(Frame::RstStream { stream, status });
    client.open(1, HEADERS).await;
    client.send_open(3, &[("streamtype", "bad")]).await;
    assert_eq!(client.next().await, reset(3, ResetStatus::CANCEL));
    for number_taken_or_even in [4, 1] {
        client.send_open(number_taken_or_even, HEADERS).await;
        assert_eq!(client.next().await, reset(number_taken_or_even, ResetStatus::PROTOCOL_ERROR));
    }
    client.open(5, HEADERS).await;
    client.send_open(7, HEADERS).await;
    assert_eq!(client.next().await, reset(7, ResetStatus::REFUSED_STREAM));
    drop(incoming.recv().await.unwrap());
    client.open(9, HEADERS).await;
}

#[tokio::test]
async fn a_reset_ends_both_halves_and_nothing_else() {
    let (Connection { mut incoming, closer: _closer, driver }, mut client) = connected(10);
    let driver = tokio::spawn(driver);
    client.open(1, HEADERS).await;
    client.open(3, HEADERS).await;
    let (mut one, mut three) = (incoming.recv().await.unwrap(), incoming.recv().await.unwrap());
    client.send(Frame::RstStream { stream: 1, status: ResetStatus::CANCEL }).await;
    one.writer.gone().await;
    assert!(one.reader.next().await.is_none());
    assert_eq!(one.writer.write("x".into()).await, Err(Gone));
    client.write(3, "y").await;
    assert_eq!(&three.reader.next().await.unwrap()[..], b"y");
    drop(client);
    driver.await.unwrap();
    three.writer.gone().await;
    assert_eq!(three.writer.finish().await, Err(Gone));
}

#[tokio::test]
async fn what_nobody_reads_is_held_up_and_not_kept() {
    let (Connection { mut incoming, closer: _closer, driver }, mut client) = connected(10);
    tokio::spawn(driver);
    client.open(1, HEADERS).await;
    let stream = incoming.recv().await.unwrap();
    let flood = async {
        for _ in 0..10_000 {
            client.write(1, vec![0; 16_000]).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_millis(300), flood).await;
    assert!(ended.is_err(), "the client is made to wait");
    drop(stream);
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_gone() {
    let (server, mut client) = tokio::io::duplex(4096);
    let connection = Connection::new(server, 10, |_| true);
    let driver = tokio::spawn(connection.driver);
    client.write_all(b"GET / HTTP/1.1\r\n\x80\x02\x00\x01\x00\x00\x00\x00").await.unwrap();
    client.write_all(&[0x80; 64]).await.ok();
    drop(client);
    driver.await.unwrap();
}
