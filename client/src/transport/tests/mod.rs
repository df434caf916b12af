//! Clients before real TLS servers on this host.

mod server;

use futures::future::join_all;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use server::Server;

use super::*;
use crate::freezing_proxy::FreezingProxy;

/// More than anything here takes, on a busy machine too.
const LONG: Duration = Duration::from_secs(60);

/// Opens a watch; returns its body when the first line of it has come.
async fn watch(client: &Client) -> Body {
    let request = Request::get("/watch").body(Body::empty()).unwrap();
    let mut body = client.send(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first\n");
    body
}

async fn get(client: &Client, path: &str) -> Result<String, kube::Error> {
    tokio::time::timeout(LONG, client.request_text(Request::get(path).body(Vec::new()).unwrap())).await.unwrap()
}

#[tokio::test]
async fn all_requests_and_watches_of_a_client_share_a_connection() {
    let server = Server::start(&["h2", "http/1.1"]).await;
    let client = client(server.config()).unwrap();
    let watches = join_all((0..14).map(|_| watch(&client))).await;
    let versions = join_all((0..20).map(|_| get(&client, "/version"))).await;
    assert!(versions.into_iter().all(|version| version.unwrap() == "HTTP/2.0"));
    assert_eq!(server.connections(), 1, "those that asked at the same time waited for the same connection");
    drop(watches);
}

#[tokio::test]
async fn watches_beyond_what_a_connection_may_have_get_another() {
    let server = Server::start(&["h2"]).await;
    let transport = Transport::new(&server.config(), KeepAlive::default()).unwrap();
    let service = ServiceBuilder::new().layer(server.config().base_uri_layer()).service(transport.clone());
    let client = Client::new(service, "default");
    let watches = tokio::time::timeout(LONG, join_all((0..600).map(|_| watch(&client)))).await.unwrap();
    assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0");
    let opened = server.connections();
    // 100 each until the server's word comes, that it allows more.
    assert!((3..=7).contains(&opened), "{opened} connections for 600 watches");
    drop(watches);
    assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0");
    assert_eq!(transport.http2.count(), 1, "those without a stream are given up");
    assert_eq!(server.connections(), opened);
}

#[tokio::test]
async fn watches_that_nobody_reads_hold_up_nothing() {
    let server = Server::start(&["h2"]).await;
    let client = client(server.config()).unwrap();
    let mut stalled = Vec::new();
    for _ in 0..14 {
        let request = Request::get("/flood").body(Body::empty()).unwrap();
        stalled.push(client.send(request).await.unwrap().into_body());
    }
    server.until_flooded(14 * STREAM).await;
    assert_eq!(get(&client, "/list").await.unwrap().len(), server::LIST);
    assert_eq!(server.connections(), 1);
    drop(stalled);
}

/// As large as the window of a stream.
const STREAM: usize = 1 << 20;

#[tokio::test]
async fn a_server_that_went_without_a_word_is_noticed_and_asked_anew_when_it_is_back() {
    let server = Server::start(&["h2"]).await;
    let proxy = FreezingProxy::before(server.address()).await;
    let keep_alive = KeepAlive { interval: Duration::from_millis(200), timeout: Duration::from_millis(300) };
    let client = connected_client(server.config_at(proxy.address()), keep_alive).unwrap().client;
    let mut watched = watch(&client).await;
    proxy.freeze();
    let frozen = std::time::Instant::now();
    let ended = tokio::time::timeout(LONG, watched.frame()).await.expect("it is noticed");
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    assert!(frozen.elapsed() < Duration::from_secs(20), "{:?}", frozen.elapsed());
    proxy.serve_new_connections();
    assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_is_given_up_takes_no_more_requests_and_its_watches_go_on() {
    let server = Server::start(&["h2"]).await;
    let proxy = FreezingProxy::before(server.address()).await;
    let ConnectedClient { client, connections } =
        connected_client(server.config_at(proxy.address()), KeepAlive::default()).unwrap();
    let mut watched = watch(&client).await;
    proxy.freeze();
    let sent = Instant::now();
    let unanswered = tokio::time::timeout(Duration::from_millis(100), get(&client, "/version")).await;
    assert!(unanswered.is_err(), "{unanswered:?}");
    proxy.serve_new_connections();
    connections.forget_silent_since(sent);
    assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0", "long before the ping fails");
    assert_eq!(proxy.accepted(), 2);
    assert!(watched.frame().now_or_never().is_none(), "the watch goes on");
}

#[tokio::test]
async fn a_slow_server_that_answers_pings_keeps_its_connection() {
    for (interval, opened) in [(Duration::from_millis(20), 1), (LONG, 4)] {
        let server = Server::start(&["h2"]).await;
        let keep_alive = KeepAlive { interval, timeout: LONG };
        let ConnectedClient { client, connections } = connected_client(server.config(), keep_alive).unwrap();
        let watched = watch(&client).await;
        for _ in 0..3 {
            assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0");
            let sent = Instant::now();
            let unanswered = tokio::time::timeout(Duration::from_millis(500), get(&client, "/never")).await;
            assert!(unanswered.is_err(), "{unanswered:?}");
            connections.forget_silent_since(sent);
        }
        assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0");
        assert_eq!(server.connections(), opened, "pings every {interval:?}");
        drop(watched);
    }
}

#[tokio::test]
async fn a_connection_that_is_being_opened_has_its_own_time_though_silent_ones_are_given_up() {
    let server = Server::start(&["h2"]).await;
    let proxy = FreezingProxy::before(server.address()).await;
    let mut config = server.config_at(proxy.address());
    config.connect_timeout = Some(Duration::from_secs(2));
    let ConnectedClient { client, connections } = connected_client(config, KeepAlive::default()).unwrap();
    proxy.freeze();
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.request_text(Request::get("/version").body(Vec::new()).unwrap()).await }
    });
    let connecting = async {
        while proxy.accepted() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, connecting).await.expect("it connects");
    connections.forget_silent_since(Instant::now());
    let late = tokio::time::timeout(LONG, first).await.expect("it ends").unwrap().unwrap_err();
    assert!(format!("{late:?}").contains("Late"), "{late:?}");
    assert_eq!(proxy.accepted(), 1, "nobody opened another meanwhile");
    proxy.serve_new_connections();
    assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0");
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn the_loss_of_a_connection_with_watches_is_a_warning_and_that_of_an_idle_one_is_not() {
    let keep_alive = KeepAlive { interval: Duration::from_millis(200), timeout: Duration::from_millis(300) };
    for has_watch in [true, false] {
        let server = Server::start(&["h2"]).await;
        let proxy = FreezingProxy::before(server.address()).await;
        let transport = Transport::new(&server.config_at(proxy.address()), keep_alive).unwrap();
        let base = server.config_at(proxy.address()).base_uri_layer();
        let client = Client::new(ServiceBuilder::new().layer(base).service(transport.clone()), "default");
        let (levels, ended) = Levels::of_this_thread();
        let watched = watch(&client).await;
        let watched = has_watch.then_some(watched);
        proxy.freeze();
        tokio::time::timeout(LONG, async {
            while levels.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the loss is noticed");
        let expected = if has_watch { tracing::Level::WARN } else { tracing::Level::DEBUG };
        assert_eq!(*levels.lock(), [expected]);
        drop((watched, ended));
    }
}

/// Remembers at which levels this crate logs.
struct Levels(Arc<Mutex<Vec<tracing::Level>>>);

impl Levels {
    /// What is logged on this thread while the second value lives.
    fn of_this_thread() -> (Arc<Mutex<Vec<tracing::Level>>>, impl Sized) {
        let levels = Arc::default();
        let guard = tracing::subscriber::set_default(Self(Arc::clone(&levels)));
        // While there is one alone, a thread without any that logs first turns an event off for all.
        let second = tracing::Dispatch::new(Self(Arc::default()));
        (levels, (guard, second))
    }
}

impl tracing::Subscriber for Levels {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("fairlead_client::transport")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().push(*event.metadata().level());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_failure_that_nobody_waited_for_is_not_that_of_the_next_request() {
    let server = Server::start(&["h2"]).await;
    let transport = Transport::new(&server.config_whose_first_connection_breaks().await, KeepAlive::default()).unwrap();
    assert!(transport.http2.reserve().now_or_never().is_none(), "who asked gave up");
    // The task that connects holds them too.
    let connected = async {
        while Arc::strong_count(&transport.http2) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, connected).await.expect("the first connection fails");
    assert_eq!(transport.http2.count(), 0);
    let next = tokio::time::timeout(LONG, transport.http2.reserve()).await.unwrap();
    assert!(matches!(next, Ok(Way::Http2(_))), "{:?}", next.err());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_of_http_1_1_alone_is_asked_over_that() {
    let server = Server::start(&["http/1.1"]).await;
    let client = client(server.config()).unwrap();
    let watches = join_all((0..3).map(|_| watch(&client))).await;
    for _ in 0..5 {
        assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/1.1");
    }
    assert_eq!(server.connections(), 1 + 3 + 1, "one that learnt it, one for each watch, one for the requests");
    drop(watches);
}

#[tokio::test]
async fn a_server_without_alpn_is_asked_over_http_1_1() {
    let server = Server::start(&[]).await;
    let client = client(server.config()).unwrap();
    assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/1.1");
}

#[tokio::test]
async fn what_asks_for_another_protocol_goes_over_http_1_1() {
    let server = Server::start(&["h2", "http/1.1"]).await;
    let client = client(server.config()).unwrap();
    assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0");
    let request = Request::get("/version")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .body(Vec::new())
        .unwrap();
    assert_eq!(client.request_text(request).await.unwrap(), "HTTP/1.1");
}

#[tokio::test]
async fn a_server_that_says_that_it_will_close_gets_no_new_requests_and_the_old_end_in_peace() {
    let server = Server::start(&["h2"]).await;
    let client = client(server.config()).unwrap();
    let watched = watch(&client).await;
    server.close_gracefully();
    // Which connection takes it depends on whether the GOAWAY has come.
    while server.connections() < 2 {
        assert_eq!(get(&client, "/version").await.unwrap(), "HTTP/2.0");
    }
    server.end_watches();
    let rest = watched.collect().await.expect("a clean end, no error");
    assert!(rest.to_bytes().is_empty());
}

#[tokio::test]
async fn those_who_wait_for_a_connection_share_its_failure() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut config = Config::new(url.parse().unwrap());
    config.root_cert = Some(Vec::new());
    config.connect_timeout = Some(Duration::from_millis(200));
    let client = client(config).unwrap();
    let errors = join_all((0..3).map(|_| get(&client, "/version"))).await;
    for error in errors {
        let Err(kube::Error::Service(error)) = error else { panic!("{error:?}") };
        assert!(matches!(error.downcast_ref(), Some(ConnectError::Late { .. })), "{error:?}");
    }
    assert!(listener.accept().await.is_ok());
    assert!(futures::FutureExt::now_or_never(listener.accept()).is_none(), "one connection for all of them");
}
