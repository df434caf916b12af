//! Connections that are taken apart and put together again, with a client that writes bytes. Time passes only while
//! everybody waits for it.

use std::convert::Infallible;

use futures::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Full};
use hyper::{header, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nhost: server\r\n\r\n";
/// Of the answer to `/large`.
const LARGE: usize = 1 << 20;
const MOMENT: Duration = Duration::from_millis(5);

type Answer = BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>>;

/// Answers with the path, with the body or with much, or never. Switches protocols for whoever wants that: then it says
/// back what is said.
fn answer(request: Request<Incoming>) -> Answer {
    async move {
        let path = Bytes::copy_from_slice(request.uri().path().as_bytes());
        let mut answer = Response::new(Full::new(path));
        match request.uri().path() {
            "/body" => {
                let body = request.into_body().collect().await.expect("all of it comes");
                return Ok(Response::new(Full::new(body.to_bytes())));
            }
            "/large" => *answer.body_mut() = Full::new(vec![b'x'; LARGE].into()),
            "/never" => std::future::pending().await,
            _ => {}
        }
        if request.headers().contains_key(header::UPGRADE) {
            *answer.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
            answer.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
            *answer.body_mut() = Full::default();
            tokio::spawn(async move {
                let mut stream = TokioIo::new(hyper::upgrade::on(request).await.expect("it is switched"));
                let mut said = [0; 4];
                stream.read_exact(&mut said).await.unwrap();
                stream.write_all(&said).await.unwrap();
            });
        }
        Ok(answer)
    }
    .boxed()
}

struct Pair<S>
where
    Counting<S>: HttpService<Incoming>,
{
    client: DuplexStream,
    server: IdleHttp1<TokioIo<DuplexStream>, S>,
}

fn pair()
-> Pair<impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future = Answer> + Unpin>
{
    let (client, server) = tokio::io::duplex(1 << 16);
    Pair { client, server: IdleHttp1::serve(TokioIo::new(server), service_fn(answer)) }
}

impl<S> Pair<S>
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future = Answer> + Unpin,
{
    async fn say(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// What the server says, up to this.
    async fn heard_until(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        let listening = async {
            while !heard.ends_with(end.as_bytes()) {
                heard.push(self.client.read_u8().await.expect("there is more"));
            }
        };
        tokio::select! {
            biased;
            () = listening => {}
            ended = &mut self.server => panic!("it ended: {ended:?}"),
        }
        String::from_utf8(heard).unwrap()
    }

    async fn is_taken_apart(&mut self) {
        let apart = std::future::poll_fn(|cx| match self.server.poll_unpin(cx) {
            Poll::Ready(ended) => panic!("it ended: {ended:?}"),
            Poll::Pending if matches!(self.server.state, State::Apart { .. }) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        });
        tokio::time::timeout(Duration::from_secs(30), apart).await.expect("nothing is asked");
    }

    /// Whether it is as it was, long after it would have been taken apart.
    async fn stays_together(&mut self) -> bool {
        self.is_together_after(LINGER * 4).await
    }

    async fn is_together_after(&mut self, time: Duration) -> bool {
        let ended = tokio::time::timeout(time, &mut self.server).await;
        ended.is_err() && matches!(self.server.state, State::Together { .. })
    }

    async fn is_apart_after(&mut self, time: Duration) -> bool {
        let ended = tokio::time::timeout(time, &mut self.server).await;
        ended.is_err() && matches!(self.server.state, State::Apart { .. })
    }

    async fn ends(&mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(30), &mut self.server).await;
        ended.expect("it ends").expect("without an error");
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_taken_apart_while_nothing_is_asked_and_answers_again() {
    let mut pair = pair();
    pair.is_taken_apart().await;
    for _ in 0..3 {
        pair.say(GET).await;
        assert!(pair.heard_until("/a").await.starts_with("HTTP/1.1 200 OK\r\n"));
        pair.is_taken_apart().await;
    }
    // A header that comes in pieces, before and after it is put together.
    pair.say(&GET[..5]).await;
    assert!(pair.stays_together().await);
    pair.say(&GET[5..]).await;
    pair.heard_until("/a").await;
    pair.is_taken_apart().await;
    pair.client.shutdown().await.unwrap();
    pair.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_came_of_a_later_request_is_not_lost() {
    let mut pair = pair();
    let long = format!("GET /long HTTP/1.1\r\nhost: server\r\nlong: {}\r\n\r\n", "x".repeat(3 * FIRST_READ));
    pair.say(&format!("{GET}{GET}{long}{}", &GET[..9])).await;
    pair.heard_until("/a").await;
    pair.heard_until("/a").await;
    pair.heard_until("/long").await;
    assert!(pair.stays_together().await);
    pair.say(&GET[9..]).await;
    pair.heard_until("/a").await;
    pair.is_taken_apart().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_is_no_request() {
    let mut pair = pair();
    pair.say(&format!("POST /post HTTP/1.1\r\nhost: server\r\ncontent-length: {}\r\n\r\n", GET.len())).await;
    pair.heard_until("/post").await;
    let together = pair.stays_together().await;
    assert!(together || matches!(pair.server.state, State::Ended), "it is not taken apart in the midst of a message");
    // It may be closed by now.
    drop(pair.client.write_all(GET.as_bytes()).await);
    let said = async {
        let mut said = [0];
        pair.client.read(&mut said).await
    };
    tokio::select! {
        said = said => assert_eq!(said.unwrap(), 0, "the body was answered"),
        ended = tokio::time::timeout(LINGER * 4, &mut pair.server) => drop(ended),
    }
}

#[tokio::test(start_paused = true)]
async fn protocols_are_switched() {
    let mut pair = pair();
    pair.say(GET).await;
    pair.heard_until("/a").await;
    pair.is_taken_apart().await;
    pair.say("GET /a HTTP/1.1\r\nhost: server\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    let mut heard = Vec::new();
    let Pair { mut client, server } = pair;
    let server = tokio::spawn(async move { drop(server.await) });
    while !heard.ends_with(b"\r\n\r\n") {
        heard.push(client.read_u8().await.unwrap());
    }
    assert!(heard.starts_with(b"HTTP/1.1 101 "));
    client.write_all(b"said").await.unwrap();
    let mut said = [0; 4];
    client.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"said");
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_when_it_is_told_to_wherever_it_is() {
    let mut never_asked = pair();
    assert!((&mut never_asked.server).now_or_never().is_none());
    never_asked.server.graceful_shutdown();
    never_asked.ends().await;
    let mut apart = pair();
    apart.say(GET).await;
    apart.heard_until("/a").await;
    apart.is_taken_apart().await;
    apart.server.graceful_shutdown();
    apart.ends().await;
    let mut together = pair();
    together.say(GET).await;
    together.heard_until("/a").await;
    together.server.graceful_shutdown();
    together.ends().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_no_more_is_closed() {
    let mut pair = pair();
    pair.say("GET /a HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n").await;
    let mut heard = String::new();
    tokio::join!(async { (&mut pair.server).await.unwrap() }, async {
        pair.client.read_to_string(&mut heard).await.unwrap();
    });
    assert!(heard.contains("connection: close") && heard.ends_with("/a"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn it_is_taken_apart_when_nothing_was_asked_for_a_moment_and_not_before() {
    let mut pair = pair();
    for _ in 0..2 {
        pair.say(GET).await;
        pair.heard_until("/a").await;
        assert!(pair.is_together_after(LINGER - MOMENT).await);
        assert!(pair.is_apart_after(2 * MOMENT).await);
    }
    // Whoever asks without a pause pays nothing.
    for _ in 0..20 {
        pair.say(GET).await;
        pair.heard_until("/a").await;
        assert!(pair.is_together_after(LINGER - MOMENT).await);
    }
    assert!(pair.is_apart_after(LINGER + MOMENT).await, "and then, too");
}

#[tokio::test(start_paused = true)]
async fn it_is_taken_apart_after_requests_with_bodies_as_well() {
    let mut pair = pair();
    let post = |path: &str, rest: &str| format!("POST {path} HTTP/1.1\r\nhost: server\r\n{rest}");
    let chunked = "transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nlast: one\r\n\r\n";
    let known = "content-length: 5\r\n\r\nhello";
    for (text, answer) in [
        (post("/body", known), "\r\n\r\nhello"),
        (post("/body", chunked), "\r\n\r\nhello"),
        // Nobody reads it, but it is there.
        (post("/unread", known), "/unread"),
    ] {
        pair.say(&text).await;
        pair.heard_until(answer).await;
        pair.is_taken_apart().await;
    }
    pair.say(&post("/body", "expect: 100-continue\r\ncontent-length: 5\r\n\r\n")).await;
    pair.heard_until("100 Continue\r\n\r\n").await;
    pair.say("hello").await;
    pair.heard_until("\r\n\r\nhello").await;
    pair.is_taken_apart().await;
    // As long as some of it is to come it stays, though the first part came with the header.
    pair.say(&post("/body", "content-length: 5\r\n\r\nhel")).await;
    assert!(pair.stays_together().await);
    pair.say("lo").await;
    pair.heard_until("\r\n\r\nhello").await;
    pair.is_taken_apart().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_body_is_the_next_request() {
    let mut pair = pair();
    for _ in 0..2 {
        let body = "x".repeat(3 * FIRST_READ);
        let post = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nhost: server\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        pair.say(&format!("{}{GET}{}{}", post("/body"), post("/body"), &GET[..9])).await;
        pair.heard_until(&body).await;
        pair.heard_until("/a").await;
        pair.heard_until(&body).await;
        assert!(pair.stays_together().await, "a request has begun");
        pair.say(&GET[9..]).await;
        pair.heard_until("/a").await;
        pair.is_taken_apart().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_made_or_not_taken_keeps_it_together() {
    let mut large = pair();
    large.say(&GET.replace("/a", "/large")).await;
    assert!(large.stays_together().await, "it is not taken");
    large.heard_until(&"x".repeat(LARGE)).await;
    large.is_taken_apart().await;
    large.say(&GET.replace("/a", "/never")).await;
    assert!(large.stays_together().await, "it is not made");
}

#[tokio::test(start_paused = true)]
async fn the_next_header_has_its_time_whether_it_has_begun_or_not() {
    let timeout = http_connection::HEADER_TIMEOUT;
    let mut silent = pair();
    silent.say(GET).await;
    silent.heard_until("/a").await;
    silent.is_taken_apart().await;
    assert!(silent.is_apart_after(timeout - MOMENT).await);
    silent.ends().await;
    let mut slow = pair();
    slow.say(GET).await;
    slow.heard_until("/a").await;
    slow.is_taken_apart().await;
    assert!(slow.is_apart_after(timeout / 2).await);
    slow.say(&GET[..9]).await;
    assert!(slow.is_together_after(timeout / 2 - MOMENT).await);
    let ended = tokio::time::timeout(2 * MOMENT, &mut slow.server).await;
    assert!(ended.expect("its time is over").is_err());
}
