//! Many connections: all of one user are served, and what each costs while nothing is asked.

use std::time::Instant;

use hyper::client::conn::{http1, http2};
use tokio::runtime::{Builder, Runtime};

use super::{counted_allocations, *};

const CONNECTIONS: i64 = 100;
/// What an idle connection may hold over HTTP/1.1: less than half of what 10,000 may take of 300 MiB.
const MOST_OF_HTTP_1: i64 = 13 << 10;
/// The same over HTTP/2, of which hyper's buffers are 28 KiB.
const MOST_OF_HTTP_2: i64 = 50 << 10;

type Empties = Empty<Bytes>;

/// A connection that has been asked something, over HTTP/1.1.
async fn asked_once(served: &Served) -> http1::SendRequest<Empties> {
    let (mut client, connection) = http1::handshake(TokioIo::new(served.connect("http/1.1").await)).await.unwrap();
    tokio::spawn(connection);
    let answer = client.send_request(served.request("/version")).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap();
    client
}

async fn asked_once_over_http_2(served: &Served) -> http2::SendRequest<Empties> {
    let stream = TokioIo::new(served.connect("h2").await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let answer = client.send_request(served.request("/version")).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap();
    client
}

/// What one of these connections adds to the memory of the server's threads, once that is less than `most`, or after a
/// long time.
fn bytes_of_each<C, F: Future<Output = C>>(client: &Runtime, most: i64, connect: impl Fn() -> F) -> i64 {
    let connect_all = |count: i64| {
        client.block_on(async {
            let mut held = Vec::new();
            for _ in 0..count {
                held.push(connect().await);
            }
            held
        })
    };
    // What is made once, such as a table of this size, is there from now on.
    let _warm = connect_all(CONNECTIONS / 2);
    let before = counted_allocations::bytes();
    let _held = connect_all(CONNECTIONS);
    let begun = Instant::now();
    loop {
        let each = (counted_allocations::bytes() - before) / CONNECTIONS;
        if each < most || begun.elapsed() > Duration::from_secs(30) {
            return each;
        }
        std::thread::yield_now();
    }
}

#[test]
fn an_idle_connection_holds_little_memory() {
    let mut builder = Builder::new_multi_thread();
    let server = builder.worker_threads(1).enable_all().on_thread_start(counted_allocations::count_this_thread);
    let server = server.build().unwrap();
    let client = Builder::new_current_thread().enable_all().build().unwrap();
    let served = server.block_on(server.spawn(serve_endless_watch())).unwrap();
    let each = bytes_of_each(&client, MOST_OF_HTTP_1, || asked_once(&served));
    assert!(each < MOST_OF_HTTP_1, "{each} bytes over HTTP/1.1");
    let each = bytes_of_each(&client, MOST_OF_HTTP_2, || asked_once_over_http_2(&served));
    assert!(each < MOST_OF_HTTP_2, "{each} bytes over HTTP/2");
}

#[tokio::test]
async fn all_connections_that_one_user_opens_at_once_are_served_while_there_are_places() {
    let limits = PlaceLimits { strangers: 16, of_one_address: 8, nodes: 64, of_one_node: 4, system: 8, users: 40 };
    let served = serve(limits, Pings::default()).await;
    let mut held = join_all((0..90).map(|_| asked_once(&served))).await;
    for client in &mut held {
        let answer = client.send_request(served.request("/version")).await;
        assert_eq!(answer.expect("the connection is still served").status(), 200);
    }
    assert_eq!(served.metric("fairlead_connections_cut_total"), 0.0);
    assert_eq!(served.metric("fairlead_connections{class=\"beyond_share\"}"), 0.0);
    // Who comes later has a place of their own, though there are not as many left.
    let mut nodes = Vec::new();
    for name in (0..60).map(|index| format!("n{index}")) {
        let client = served.client_of_node(&name);
        heartbeat(&client, &name).await;
        nodes.push(client);
    }
    assert_eq!(served.metric("fairlead_connections{class=\"node\"}"), 60.0);
    assert!(served.metric("fairlead_connections_returned_total") > 0.0);
}
