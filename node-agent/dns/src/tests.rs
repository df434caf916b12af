//! The DNS server on real sockets, with resolvers of the test's own on loopback.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, TXT},
    },
};
use tokio::sync::watch;

use super::{Dns, DnsConfig, service_records::tests::service, start};
use fairlead_world::{ServiceKind, World};

/// A resolver that knows `*.example.org`: `1.2.3.4`, with 400 bytes of TXT per record for `big.example.org`.
struct Resolver {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
}

impl Resolver {
    fn start() -> Self {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        let (asked, silent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, mute) = (asked.clone(), silent.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                if mute.load(Ordering::SeqCst) {
                    continue;
                }
                let response = respond(&buffer[..length]);
                let cut = if response.len() > 1232 {
                    Message::from_vec(&response).unwrap().truncate().to_vec().unwrap()
                } else {
                    response
                };
                udp.send_to(&cut, client).unwrap();
            }
        });
        std::thread::spawn(move || {
            for connection in tcp.incoming() {
                let mut connection = connection.unwrap();
                let mut length = [0; 2];
                connection.read_exact(&mut length).unwrap();
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                connection.read_exact(&mut query).unwrap();
                let response = respond(&query);
                connection.write_all(&(response.len() as u16).to_be_bytes()).unwrap();
                connection.write_all(&response).unwrap();
            }
        });
        Self { address, asked, silent }
    }

    fn line(&self) -> String {
        format!("nameserver [{}]:{}\n", self.address.ip(), self.address.port())
    }
}

fn respond(query: &[u8]) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    let name = message.queries[0].name().clone();
    let text = name.to_string().to_lowercase();
    let ttl = if text.starts_with("short") { 1 } else { 300 };
    if text.starts_with("big.") {
        for _ in 0..10 {
            let text = TXT::new(vec!["x".repeat(200), "y".repeat(200)]);
            message.add_answer(Record::from_rdata(name.clone(), ttl, RData::TXT(text)));
        }
    } else if text.ends_with(".example.org.") {
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A(Ipv4Addr::new(1, 2, 3, 4)))));
    } else {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    message.to_vec().unwrap()
}

struct Fixture {
    dns: Dns,
    _publish: watch::Sender<Arc<World>>,
    dir: tempfile::TempDir,
}

async fn serve(resolv_conf: &str) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    std::fs::write(&path, resolv_conf).unwrap();
    let cluster_ip = ServiceKind::ClusterIp(vec![Ipv4Addr::new(10, 96, 0, 7)]);
    let external = ServiceKind::ExternalName("www.example.org".into());
    let services = [service("default", "web", cluster_ip), service("default", "search", external)];
    let world = World {
        services: services.into_iter().map(|service| (service.name.clone(), Arc::new(service))).collect(),
        synced: true,
        revision: 7,
        ..World::default()
    };
    let (publish, seen) = watch::channel(Arc::new(world));
    let dns = start(config(&path), seen).await.unwrap();
    let fixture = Fixture { dns, _publish: publish, dir };
    while fixture.dns.revision() < 7 {
        tokio::task::yield_now().await;
    }
    fixture
}

fn config(resolv_conf: &Path) -> DnsConfig {
    DnsConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        resolv_conf: resolv_conf.to_owned(),
        node_name: "one".into(),
    }
}

fn query(name: &str, kind: RecordType, edns: bool) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    if edns {
        message.set_edns(hickory_proto::op::Edns::new());
    }
    message.to_vec().unwrap()
}

impl Fixture {
    async fn udp(&self, name: &str, kind: RecordType) -> Message {
        self.udp_packet(query(name, kind, false)).await
    }

    async fn udp_packet(&self, packet: Vec<u8>) -> Message {
        let address = self.dns.address();
        let ask = move || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(&packet, address).unwrap();
            let mut buffer = [0; 2048];
            let (length, _) = socket.recv_from(&mut buffer).unwrap();
            Message::from_vec(&buffer[..length]).unwrap()
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    async fn tcp(&self, name: &str, kind: RecordType) -> Message {
        let (address, packet) = (self.dns.address(), query(name, kind, false));
        let ask = move || {
            let mut connection = TcpStream::connect(address).unwrap();
            connection.write_all(&(packet.len() as u16).to_be_bytes()).unwrap();
            connection.write_all(&packet).unwrap();
            let mut length = [0; 2];
            connection.read_exact(&mut length).unwrap();
            let mut response = vec![0; u16::from_be_bytes(length).into()];
            connection.read_exact(&mut response).unwrap();
            Message::from_vec(&response).unwrap()
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    }
}

fn first_address(message: &Message) -> String {
    message.answers.last().map(|record| record.data.to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_cluster_are_answered_over_udp_and_tcp() {
    let fixture = serve("").await;
    let name = "web.default.svc.cluster.local.";
    assert_eq!(first_address(&fixture.udp(name, RecordType::A).await), "10.96.0.7");
    assert_eq!(first_address(&fixture.tcp(name, RecordType::A).await), "10.96.0.7");
    let counts = fixture.dns.counts();
    assert_eq!((counts.queries, counts.zone), (2, 2));
    fixture.dns.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_tcp_clients_keep_nobody_out() {
    let fixture = serve("").await;
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(fixture.dns.address()).unwrap()).collect();
    // Well before a silent connection ends by itself.
    let asked = fixture.tcp("web.default.svc.cluster.local.", RecordType::A);
    let answer = tokio::time::timeout(Duration::from_secs(5), asked).await.expect("it is answered at once");
    assert_eq!(first_address(&answer), "10.96.0.7");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_are_forwarded_once_and_then_cached() {
    let resolver = Resolver::start();
    let fixture = serve(&resolver.line()).await;
    for name in ["www.example.org.", "WWW.example.ORG.", "www.example.org."] {
        assert_eq!(first_address(&fixture.udp(name, RecordType::A).await), "1.2.3.4");
    }
    for _ in 0..2 {
        let missing = fixture.udp("nope.example.net.", RecordType::A).await;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    }
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 2);
    assert_eq!(fixture.dns.counts().cache_hits, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_name_is_followed_to_other_resolvers() {
    let resolver = Resolver::start();
    let fixture = serve(&resolver.line()).await;
    let message = fixture.udp("search.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(message.answers.len(), 2);
    assert_eq!(first_address(&message), "1.2.3.4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_too_large_for_udp_is_fetched_and_given_over_tcp() {
    let resolver = Resolver::start();
    let fixture = serve(&resolver.line()).await;
    assert!(fixture.udp("big.example.org.", RecordType::TXT).await.metadata.truncation);
    assert_eq!(fixture.tcp("big.example.org.", RecordType::TXT).await.answers.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_resolver_gives_way_to_the_next_and_stale_answers_bridge_the_rest() {
    let (silent, resolver) = (Resolver::start(), Resolver::start());
    silent.silent.store(true, Ordering::SeqCst);
    let fixture = serve(&format!("{}{}", silent.line(), resolver.line())).await;
    assert_eq!(first_address(&fixture.udp("short.example.org.", RecordType::A).await), "1.2.3.4");
    resolver.silent.store(true, Ordering::SeqCst);
    // Its time of one second is over when a client no longer gets it as a cache hit.
    let hits = |fixture: &Fixture| fixture.dns.counts().cache_hits;
    let mut before = hits(&fixture);
    loop {
        assert_eq!(first_address(&fixture.udp("short.example.org.", RecordType::A).await), "1.2.3.4");
        if hits(&fixture) == before {
            break;
        }
        before = hits(&fixture);
    }
    assert!(fixture.dns.counts().cache_stale > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_resolver_the_answer_is_servfail_and_says_why() {
    let fixture = serve("search example.org\n").await;
    let message = fixture.udp_packet(query("www.example.org.", RecordType::A, true)).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    let bytes = message.to_vec().unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("names no resolver"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_address_as_resolver_makes_no_loop() {
    let fixture = serve("").await;
    let address = fixture.dns.address();
    std::fs::write(
        fixture.dir.path().join("resolv.conf"),
        format!("nameserver [{}]:{}\n", address.ip(), address.port()),
    )
    .unwrap();
    let message = fixture.udp("www.example.org.", RecordType::A).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert!(fixture.dns.counts().queries <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_frees_the_port() {
    let fixture = serve("").await;
    let address = fixture.dns.address();
    fixture.dns.shutdown().await;
    UdpSocket::bind(address).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_name_each_other_as_resolver_give_up_without_a_storm() {
    let (first, second) = (serve("").await, serve("").await);
    for (fixture, other) in [(&first, &second), (&second, &first)] {
        let address = other.dns.address();
        let line = format!("nameserver [{}]:{}\n", address.ip(), address.port());
        std::fs::write(fixture.dir.path().join("resolv.conf"), line).unwrap();
    }
    let message = first.udp("www.example.org.", RecordType::A).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    let queries = first.dns.counts().queries + second.dns.counts().queries;
    assert!(queries < 20, "{queries} queries from one");
}
