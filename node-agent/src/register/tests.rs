//! New certificates are taken up by the server and the API client that use them. Time comes in as an argument.

mod dead_connection;
mod ended_certificate;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{Router, routing::get};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_util::sync::CancellationToken;

use super::{
    certificate::{Certificate, CertificateError, Validity},
    joining::JoinEndpoint,
    live_client::LiveClient,
    renewal::{Renewable, Renewal},
};
use crate::https::{Https, HttpsRoutes, Tls};

const LIFE: Duration = Duration::from_secs(1000);

/// A cluster's CA.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl Ca {
    fn new() -> Arc<Self> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Arc::new(Self { issuer: Issuer::new(params, key), der })
    }

    fn pem(&self) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", self.der.clone()))
    }

    /// For 127.0.0.1, from `from` for [`LIFE`].
    fn issue(&self, common_name: &str, from: SystemTime) -> Certificate {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.not_before, params.not_after) = (from.into(), (from + LIFE).into());
        let key = KeyPair::generate().unwrap();
        let issued = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { chain_pem: issued.pem(), key_pem: key.serialize_pem() }
    }

    fn endpoint(&self, https: &Https) -> JoinEndpoint {
        let url = format!("https://{}", https.listener.local_addr().unwrap()).parse().unwrap();
        JoinEndpoint { url, ca_der: self.der.clone(), bearer: "abcdef.0123456789abcdef".into() }
    }
}

/// Signs at once, unless the signer is away; takes up by `replace`.
struct Subject<F> {
    ca: Arc<Ca>,
    common_name: &'static str,
    away: Arc<AtomicBool>,
    replace: F,
}

#[async_trait::async_trait]
impl<F: Fn(&Certificate) + Send + Sync> Renewable for Subject<F> {
    fn purpose(&self) -> &'static str {
        "test"
    }

    async fn request(&self, _: bool) -> Result<Certificate, Box<dyn std::error::Error + Send + Sync>> {
        if self.away.load(Ordering::Relaxed) {
            return Err(CertificateError::NotSigned { name: "csr".into() }.into());
        }
        Ok(self.ca.issue(self.common_name, SystemTime::now()))
    }

    fn take_up(&self, certificate: &Certificate) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        (self.replace)(certificate);
        Ok(())
    }
}

/// The leaf that a server shows in a new handshake.
async fn shown(https_at: std::net::SocketAddr, ca: &Ca) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der.clone().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(https_at).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(certificate: &Certificate) -> Vec<u8> {
    pem::parse(&certificate.chain_pem).unwrap().into_contents()
}

async fn serve(ca: &Ca, certificate: &Certificate) -> (JoinEndpoint, std::net::SocketAddr, Tls, CancellationToken) {
    let trusted = Router::new().route("/who", get(|| async { "welcome" })).route("/watch", get(endless));
    serve_trusted(ca, certificate, trusted).await
}

async fn serve_trusted(
    ca: &Ca,
    certificate: &Certificate,
    trusted: Router,
) -> (JoinEndpoint, std::net::SocketAddr, Tls, CancellationToken) {
    let https = Https::bind("127.0.0.1:0".parse().unwrap(), certificate, &ca.pem()).await.unwrap();
    let (endpoint, address, tls) = (ca.endpoint(&https), https.listener.local_addr().unwrap(), https.tls().clone());
    let stop = CancellationToken::new();
    let open = Router::new().route("/livez", get(|| async { "ok" }));
    tokio::spawn(std::sync::Arc::new(https).serve(HttpsRoutes { trusted, open }, stop.clone()));
    (endpoint, address, tls, stop)
}

/// A line, and no end.
async fn endless() -> axum::body::Body {
    let first = futures::stream::iter([Ok::<_, std::io::Error>("first\n")]);
    axum::body::Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
}

#[tokio::test]
async fn the_server_shows_its_new_certificate_when_most_of_the_old_ones_life_is_over() {
    let (ca, start) = (Ca::new(), SystemTime::now());
    let first = ca.issue("node", start);
    let (_, address, tls, stop) = serve(&ca, &first).await;
    let away = Arc::new(AtomicBool::new(true));
    let replace = move |new: &Certificate| tls.replace(new).unwrap();
    let subject = Subject { ca: ca.clone(), common_name: "node", away: away.clone(), replace };
    let told = tokio::sync::watch::Sender::new(None);
    let mut renewal = Renewal::new(subject, first.validity().unwrap()).telling(told.clone());
    assert_eq!(*told.borrow(), first.validity().ok());

    let due = renewal.tick(start + LIFE / 2).await;
    assert!((start + LIFE / 10 * 7 - Duration::from_secs(1)..start + LIFE / 10 * 9).contains(&due), "{due:?}");
    let again = renewal.tick(due).await;
    assert_eq!(again, due + Duration::from_secs(2), "the signer is away");
    assert_eq!(renewal.tick(due + Duration::from_secs(1)).await, again, "not before the back-off is over");
    assert_eq!(shown(address, &ca).await, der(&first));

    away.store(false, Ordering::Relaxed);
    assert!(renewal.tick(again).await > start + LIFE / 2, "the new certificate's time");
    assert_ne!(shown(address, &ca).await, der(&first));
    assert!(told.borrow().unwrap().from > start - Duration::from_secs(1));
    stop.cancel();
}

#[tokio::test]
async fn what_holds_an_api_client_goes_on_with_its_new_certificate() {
    let (ca, start) = (Ca::new(), SystemTime::now());
    let (endpoint, _, _, stop) = serve(&ca, &ca.issue("node", start)).await;
    // Whom the server lets in is seen by the certificate's name.
    let first = ca.issue("a stranger", start);
    let live = LiveClient::new(endpoint.with_certificate(&first).unwrap());
    let held_elsewhere = live.client().clone();
    let ask = || async {
        let request = http::Request::get("/who").body(Vec::new()).unwrap();
        held_elsewhere.request_text(request).await
    };
    assert!(ask().await.is_err());

    let replace = move |new: &Certificate| live.replace(endpoint.with_certificate(new).unwrap());
    let subject = Subject {
        ca: ca.clone(),
        common_name: "system:kube-apiserver",
        away: Arc::new(AtomicBool::new(false)),
        replace,
    };
    Renewal::new(subject, first.validity().unwrap()).tick(start + LIFE).await;
    assert_eq!(ask().await.unwrap(), "welcome");
    stop.cancel();
}

#[tokio::test]
async fn a_watch_goes_on_when_the_certificate_is_replaced_and_what_comes_then_has_a_connection_of_its_own() {
    use http_body_util::BodyExt;

    let (ca, start) = (Ca::new(), SystemTime::now());
    let (endpoint, _, _, stop) = serve(&ca, &ca.issue("node", start)).await;
    let trusted = ca.issue("system:kube-apiserver", start);
    let live = LiveClient::new(endpoint.with_certificate(&trusted).unwrap());
    let client = live.client().clone();
    let get = |path: &str| http::Request::get(path).body(kube::client::Body::empty()).unwrap();
    let mut watch = client.send(get("/watch")).await.unwrap().into_body();
    assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), "first\n");
    assert_eq!(client.send(get("/who")).await.unwrap().status(), 200);
    live.replace(endpoint.with_certificate(&ca.issue("a stranger", start)).unwrap());
    assert_eq!(client.send(get("/who")).await.unwrap().status(), 403, "the new certificate is shown");
    assert!(futures::FutureExt::now_or_never(watch.frame()).is_none(), "the old watch goes on");
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(30), watch.frame()).await.expect("it ends with its server");
    assert!(!matches!(ended, Some(Ok(_))));
}

#[tokio::test]
async fn without_a_certificate_of_the_api_server_only_the_open_routes_answer() {
    let (ca, start) = (Ca::new(), SystemTime::now());
    let (endpoint, _, _, stop) = serve(&ca, &ca.issue("node", start)).await;
    let ask = async |client: &kube::Client, path: &str| {
        client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await
    };
    let code = |answer: Result<String, kube::Error>| match answer {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    };
    let nobody = endpoint.with_token().unwrap().client;
    assert_eq!(ask(&nobody, "/livez").await.unwrap(), "ok");
    assert_eq!(code(ask(&nobody, "/who").await), 401);
    let stranger = endpoint.with_certificate(&ca.issue("a stranger", start)).unwrap().client;
    assert_eq!(code(ask(&stranger, "/livez").await), 200);
    assert_eq!(code(ask(&stranger, "/who").await), 403);
    stop.cancel();
}

#[tokio::test]
async fn a_header_without_end_is_refused() {
    let (ca, start) = (Ca::new(), SystemTime::now());
    let (endpoint, _, _, stop) = serve(&ca, &ca.issue("node", start)).await;
    let api = endpoint.with_certificate(&ca.issue("system:kube-apiserver", start)).unwrap().client;
    let ask = async |bytes: usize| {
        let request = http::Request::get("/who").header("long", "x".repeat(bytes)).body(kube::client::Body::empty());
        api.send(request.unwrap()).await.unwrap().status()
    };
    assert_eq!(
        (ask(8 << 10).await, ask(24 << 10).await),
        (http::StatusCode::OK, http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    );
    stop.cancel();
}

#[tokio::test]
async fn silent_strangers_hold_few_connections_and_keep_nobody_out() {
    let (ca, start) = (Ca::new(), SystemTime::now());
    let (endpoint, address, _, stop) = serve(&ca, &ca.issue("node", start)).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    // Well before the time that a handshake may take.
    let cut = tokio::time::timeout(Duration::from_secs(5), tokio::io::AsyncReadExt::read_u8(&mut silent[0])).await;
    assert!(cut.expect("the oldest is cut").is_err());
    let api = endpoint.with_certificate(&ca.issue("system:kube-apiserver", start)).unwrap().client;
    let request = http::Request::get("/who").body(Vec::new()).unwrap();
    assert_eq!(api.request_text(request).await.unwrap(), "welcome");
    stop.cancel();
}

#[tokio::test]
async fn connections_that_are_trusted_do_not_count_as_strangers() {
    let (ca, start) = (Ca::new(), SystemTime::now());
    let (endpoint, address, _, stop) = serve(&ca, &ca.issue("node", start)).await;
    let stranger = tokio::net::TcpStream::connect(address).await.unwrap();
    let own = endpoint.with_certificate(&ca.issue("system:kube-apiserver", start)).unwrap();
    let mut trusted = Vec::new();
    for _ in 0..40 {
        // Each watch keeps its own connection.
        let client = endpoint.with_certificate(&ca.issue("system:kube-apiserver", start)).unwrap().client;
        let request = http::Request::get("/watch").body(kube::client::Body::empty()).unwrap();
        trusted.push(client.send(request).await.unwrap());
    }
    let request = http::Request::get("/who").body(Vec::new()).unwrap();
    assert_eq!(own.client.request_text(request).await.unwrap(), "welcome");
    let read = std::io::Read::read(&mut stranger.into_std().unwrap(), &mut [0]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it is not cut");
    stop.cancel();
}

#[test]
fn a_kept_certificate_is_read_back_and_holds_as_long_as_it_says() {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
    let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let certificate = ca.issue("node", from);
    certificate.store(dir.path(), "client").unwrap();
    let kept = Certificate::load(dir.path(), "client").unwrap().unwrap();
    assert_eq!(der(&kept), der(&certificate));
    assert_eq!(kept.validity().unwrap(), Validity { from, until: from + LIFE });
    let pem = ca.pem();
    assert!(kept.is_usable(&pem, from + LIFE / 20 * 19), "what is left of its life is for its renewal");
    assert!(!kept.is_usable(&pem, from + LIFE) && !kept.is_usable(&pem, from - Duration::from_secs(1)));
    assert!(!kept.is_usable(&Ca::new().pem(), from), "another cluster's");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "key and chain are one file");
}

#[test]
fn what_an_earlier_version_kept_is_read() {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
    let certificate = ca.issue("node", SystemTime::now());
    std::fs::write(dir.path().join("client.crt"), &certificate.chain_pem).unwrap();
    assert!(Certificate::load(dir.path(), "client").unwrap().is_none());
    std::fs::write(dir.path().join("client.key"), &certificate.key_pem).unwrap();
    assert_eq!(Certificate::load(dir.path(), "client").unwrap().unwrap().key_pem, certificate.key_pem);
}
