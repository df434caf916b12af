//! What outlives a client certificate on a connection to the agent: nothing.

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Becomes a connection that sends back what it gets.
async fn echo(request: Request) -> Response {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        tokio::io::copy(&mut from, &mut to).await
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "tcp")];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// TLS with a client certificate.
async fn connect(
    address: std::net::SocketAddr,
    ca: &Ca,
    certificate: &Certificate,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der.clone().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.chain_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_of_who_opened_it() {
    let ca = Ca::new();
    let trusted = Router::new().route("/echo", get(echo));
    let (_, address, _, stop) = serve_trusted(&ca, &ca.issue("node", SystemTime::now()), trusted).await;
    // Long enough for a handshake on a busy machine.
    let ends = SystemTime::now() + Duration::from_secs(5);
    let tls = connect(address, &ca, &ca.issue("system:kube-apiserver", ends - LIFE)).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get("/echo").header(header::HOST, "agent").header(header::CONNECTION, "upgrade");
    let request = request.header(header::UPGRADE, "tcp").body(Body::empty()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    stream.write_all(b"text").await.unwrap();
    let mut text = [0; 4];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"text");

    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut text)).await;
    assert_eq!(ended.expect("the agent ends it").unwrap_or(0), 0);
    assert!(SystemTime::now() >= ends - Duration::from_secs(1), "not before: certificates count whole seconds");
    stop.cancel();
}
