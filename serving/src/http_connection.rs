//! How a server speaks TCP and HTTP with whoever connects: for how long it waits, how much it takes, and how it notices
//! that a client is gone.
//!
//! It decides nothing about TLS, and nothing about what is answered.

use std::{io, os::fd::AsFd, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// From the end of one answer to the next request's header, over HTTP/1. Longer than clients keep an idle connection
/// (90 s in Go and in hyper): the one who sends requests should be the one who closes, or a request may meet a
/// connection that is just going.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Streams of one HTTP/2 connection, as Go's servers allow; clients that need more open another.
const MAX_STREAMS: u32 = 250;
/// Bytes of a body that one stream holds beyond what its client has taken; hyper takes 400 KB, which a client with 250
/// streams that reads nothing would have in each of its connections.
pub const MAX_SEND_BUFFER: usize = 64 << 10;
/// Bytes of a request's header over HTTP/1, with its first line. Go's servers take 1 MiB. Over HTTP/2, where one
/// connection has many streams, it is hyper's 16 KiB.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// TCP's own probes, of a connection on which nothing was sent for that long: HTTP/1 has no pings, and a watch may be
/// silent for an hour. A node that lost power leaves its connections open; in time they would fill the limit.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// Between two probes. After four without an answer the connection is closed.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// Pings of HTTP/2, so that a client that is gone is noticed even while nothing is sent.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    /// Between two of them.
    pub interval: Duration,
    /// How long the answer to one may take.
    pub timeout: Duration,
}

impl Default for Pings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(20) }
    }
}

/// Time limits and bounds of HTTP/1. The builders of hyper and hyper-util have the same methods, and no trait in
/// common.
macro_rules! limit_http1 {
    ($builder:expr) => {
        // The size is also how much of a body is read, or written before a flush, at a time: four TLS records.
        $builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES)
    };
}

/// HTTP/1 alone, with the same time limits and bounds as [`http`].
pub(crate) fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    limit_http1!(builder);
    builder
}

/// HTTP/1 and HTTP/2, with time limits and bounds.
pub fn http(pings: Pings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    limit_http1!(builder.http1());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(pings.interval)
        .keep_alive_timeout(pings.timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_SEND_BUFFER);
    builder
}

/// Has small answers sent at once, and a client that lost power noticed.
pub fn set_options(stream: &TcpStream) -> io::Result<()> {
    // A short answer or watch event must not wait for the acknowledgement of what precedes it (RFC 896 and RFC 1122,
    // 4.2.3.2: some 40 ms).
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// Has the kernel acknowledge what has come now rather than with the next answer, or after 40 ms. After a handshake
/// there is none: a client that waits for it before it sends its first request (RFC 896, where it has not turned that
/// off) would wait for nothing.
pub fn acknowledge_now(stream: &impl AsFd) -> io::Result<()> {
    SockRef::from(stream).set_tcp_quickack(true)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use bytes::Bytes;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::{Request, Response, body::Incoming, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        net::TcpListener,
    };

    use super::*;

    /// The client's end of a connection.
    fn serve(pings: Pings) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1 << 20);
        let answer = |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(String::new())) };
        tokio::spawn(async move {
            // It may end as it likes.
            drop(http(pings).serve_connection(TokioIo::new(server), service_fn(answer)).await);
        });
        client
    }

    #[tokio::test]
    async fn a_client_that_answers_no_ping_is_given_up() {
        let pings = Pings { interval: Duration::from_millis(50), timeout: Duration::from_millis(100) };
        let mut client = serve(pings);
        // The preface and empty settings (RFC 9113, section 3.4), and not a word more.
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), client.read_to_end(&mut Vec::new())).await;
        assert!(ended.expect("it is closed").unwrap() > 0);
    }

    #[tokio::test]
    async fn headers_over_http_1_have_a_bound() {
        for (bytes, expected) in [(32 << 10, "HTTP/1.1 200 "), (80 << 10, "HTTP/1.1 431 ")] {
            let mut client = serve(Pings::default());
            let long = "x".repeat(bytes);
            let request = format!("GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\nlong: {long}\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(expected), "{bytes}: {answer}");
        }
    }

    #[tokio::test]
    async fn headers_over_http_2_have_a_bound() {
        let connection = TokioIo::new(serve(Pings::default()));
        let (mut client, connection) =
            hyper::client::conn::http2::handshake::<_, _, String>(TokioExecutor::new(), connection).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut ask = |bytes: usize| {
            let request = Request::get("http://server/").header("long", "x".repeat(bytes)).body(String::new());
            client.send_request(request.unwrap())
        };
        assert_eq!(ask(8 << 10).await.unwrap().status(), 200);
        assert_eq!(ask(24 << 10).await.unwrap().status(), 431);
        connection.abort();
    }

    #[tokio::test]
    async fn of_an_answer_that_a_client_has_room_for_and_does_not_read_little_is_buffered() {
        let (client, server) = tokio::io::duplex(1 << 10);
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let answer = move |_: Request<Incoming>| {
            let count = count.clone();
            let piece = move || {
                count.fetch_add(16 << 10, Ordering::Relaxed);
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 16 << 10]))), ()))
            };
            let body = StreamBody::new(futures::stream::unfold((), move |()| std::future::ready(piece())));
            async { Ok::<_, Infallible>(Response::new(body)) }
        };
        let serving = tokio::spawn(async move {
            // It may end as it likes.
            drop(http(Pings::default()).serve_connection(TokioIo::new(server), service_fn(answer)).await);
        });
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size((1 << 31) - 1).initial_connection_window_size((1 << 31) - 1);
        let (mut client, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
        let mut connection = Box::pin(connection);
        let asked = client.send_request(Request::get("http://server/").body(String::new()).unwrap());
        tokio::select! {
            answer = asked => assert_eq!(answer.unwrap().status(), 200),
            ended = &mut connection => panic!("{ended:?}"),
        }
        // From now on nobody reads: the server goes on until it is full.
        let is_full = async {
            let (mut before, mut same) = (0, 0);
            while same < 1_000 {
                tokio::task::yield_now().await;
                let now = taken.load(Ordering::Relaxed);
                same = if now == before { same + 1 } else { 0 };
                before = now;
                assert!(now < 4 * MAX_SEND_BUFFER, "{now} bytes");
            }
        };
        tokio::time::timeout(Duration::from_secs(30), is_full).await.expect("it stops");
        assert!(taken.load(Ordering::Relaxed) >= MAX_SEND_BUFFER);
        serving.abort();
    }

    #[test]
    fn a_client_that_waits_for_an_acknowledgement_has_it() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nodelay(true).unwrap();
        server.set_nonblocking(true).unwrap();
        let mut byte = [0];
        for _ in 0..50 {
            // As in a handshake: after an answer the kernel waits for the next to acknowledge with.
            client.write_all(b"1").unwrap();
            assert_eq!(server.read(&mut byte).unwrap(), 1);
            server.write_all(b"2").unwrap();
            client.read_exact(&mut byte).unwrap();
            client.write_all(b"3").unwrap();
            assert_eq!(server.read(&mut byte).unwrap(), 1);
            acknowledge_now(&server).unwrap();
            // Which is sent at once, as nothing is under way.
            client.write_all(b"4").unwrap();
            assert_eq!(server.read(&mut byte).expect("the client waits"), 1);
        }
    }

    #[tokio::test]
    async fn a_connection_whose_other_end_lost_power_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        set_options(&stream).unwrap();
        let options = SockRef::from(&stream);
        assert!(options.keepalive().unwrap() && stream.nodelay().unwrap());
        let noticed = options.tcp_keepalive_time().unwrap()
            + options.tcp_keepalive_interval().unwrap() * options.tcp_keepalive_retries().unwrap();
        assert_eq!(noticed, Duration::from_secs(120), "Linux probes after two hours unless told");
    }
}
