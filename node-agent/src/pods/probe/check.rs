//! One try of a probe or hook: HTTP, TCP, gRPC or a command in the container. Says whether it went well, and what was
//! seen.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{CheckError, grpc};
use crate::runtime::Runtime;

/// Where and as what a check is made.
pub struct Target<'a> {
    /// Runs the commands of exec probes.
    pub runtime: &'a dyn Runtime,
    /// The runtime's id of the running instance.
    pub container_id: &'a str,
    /// Its spec, for the names of ports.
    pub container: &'a Container,
    /// The host that is asked unless the action names one.
    pub pod_ip: Ipv4Addr,
}

/// What a check does.
#[derive(Clone, Copy)]
pub enum Check<'a> {
    /// A command in the container.
    Exec(&'a ExecAction),
    /// A GET.
    Http(&'a HTTPGetAction),
    /// A connection, closed at once.
    Tcp(&'a TCPSocketAction),
    /// `grpc.health.v1.Health/Check`.
    Grpc(&'a GRPCAction),
}

impl<'a> Check<'a> {
    /// `None` for a probe that says nothing of what to do.
    pub fn of(probe: &'a Probe) -> Option<Self> {
        let exec = probe.exec.as_ref().map(Self::Exec);
        let of_server = probe.http_get.as_ref().map(Self::Http).or(probe.tcp_socket.as_ref().map(Self::Tcp));
        exec.or(of_server).or(probe.grpc.as_ref().map(Self::Grpc))
    }

    /// Makes the check once, for at most `timeout`.
    pub async fn run(self, target: &Target<'_>, timeout: Duration) -> Result<(), CheckError> {
        match self {
            Self::Exec(action) => exec(target, action, timeout).await,
            Self::Http(action) => {
                let asked = tokio::time::timeout(timeout, get(target, action)).await;
                asked.unwrap_or(Err(CheckError::HttpTimedOut(timeout)))
            }
            Self::Grpc(action) => {
                let asked = tokio::time::timeout(timeout, grpc::check(target.pod_ip, action)).await;
                asked.unwrap_or(Err(CheckError::GrpcTimedOut(timeout)))
            }
            Self::Tcp(action) => {
                let host =
                    action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.pod_ip.to_string());
                let port = port(target.container, &action.port)?;
                let connected = tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), port))).await;
                let failed = |cause: String| CheckError::Tcp { address: format!("{host}:{port}"), cause };
                let connected = connected.map_err(|_| failed("i/o timeout".to_owned()))?;
                connected.map(drop).map_err(|error| failed(error.to_string()))
            }
        }
    }
}

/// Bytes of a command's output, or of an answer, that a message quotes.
const QUOTED: usize = 1024;

async fn exec(target: &Target<'_>, action: &ExecAction, timeout: Duration) -> Result<(), CheckError> {
    let command = action.command.as_deref().unwrap_or_default();
    match target.runtime.exec(target.container_id, command, timeout, QUOTED).await {
        Ok(Some(result)) if result.exit_code == 0 => Ok(()),
        Ok(Some(result)) => {
            Err(CheckError::CommandFailed { output: String::from_utf8_lossy(&result.output).trim().to_owned() })
        }
        Ok(None) => Err(CheckError::CommandTimedOut { command: command.to_vec(), limit: timeout }),
        Err(error) => Err(CheckError::Runtime(error.chain())),
    }
}

async fn get(target: &Target<'_>, action: &HTTPGetAction) -> Result<(), CheckError> {
    let port = port(target.container, &action.port)?;
    let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.pod_ip.to_string());
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let url = format!("{}://{host}:{port}{path}", if https { "https" } else { "http" });
    let failed = |error: &dyn std::fmt::Display| CheckError::Http { url: url.clone(), cause: error.to_string() };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| failed(&error))?;
    let uri: Uri = path.parse().map_err(|error: http::uri::InvalidUri| failed(&error))?;
    let mut request =
        Request::get(uri).header(http::header::USER_AGENT, "kube-probe/1.35").header(http::header::ACCEPT, "*/*");
    let mut has_host = false;
    for header in action.http_headers.iter().flatten() {
        has_host |= header.name.eq_ignore_ascii_case("host");
        request = request.header(&header.name, &header.value);
    }
    if !has_host {
        request = request.header(http::header::HOST, format!("{host}:{port}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let status = if https {
        let name = ServerName::try_from(host.clone()).map_err(|error| failed(&error))?;
        let stream = connector().connect(name, stream).await.map_err(|error| failed(&error))?;
        ask(stream, request).await
    } else {
        ask(stream, request).await
    };
    let status = status.map_err(|error| failed(&error))?;
    // A redirect shows that the server works.
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(CheckError::HttpStatus(status.as_u16())) }
}

/// Sends `request`, and returns the code of the answer.
async fn ask<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<StatusCode, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    if status.is_success() || status.is_redirection() {
        return Ok(status);
    }
    // Read so that the server is not reset in the middle of its answer.
    let body =
        Limited::new(answer.into_body(), 10 * QUOTED).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    drop(connection);
    tracing::debug!(%status, body = %String::from_utf8_lossy(&body[..body.len().min(QUOTED)]), "a probe's answer");
    Ok(status)
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, CheckError> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| CheckError::InvalidPort(port.clone()))
}

fn connector() -> tokio_rustls::TlsConnector {
    static CONFIG: std::sync::LazyLock<Arc<ClientConfig>> = std::sync::LazyLock::new(|| {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.expect("ring supports the default versions").dangerous();
        Arc::new(builder.with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth())
    });
    CONFIG.clone().into()
}

/// Accepts any certificate, as Kubernetes does: a probe checks that a server answers, not its identity.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::fake::FakeRuntime;

    async fn check(probe: Value, port: u16) -> Result<(), CheckError> {
        let probe: Probe = serde_json::from_value(probe).unwrap();
        let container = json!({ "name": "app", "ports": [{ "name": "web", "containerPort": port }] });
        let container: Container = serde_json::from_value(container).unwrap();
        let runtime = FakeRuntime::default();
        let target = Target { runtime: &runtime, container_id: "", container: &container, pod_ip: Ipv4Addr::LOCALHOST };
        Check::of(&probe).unwrap().run(&target, Duration::from_secs(10)).await
    }

    #[tokio::test]
    async fn http_checks_take_success_and_redirects_for_health_and_name_the_code_of_others() {
        let router = Router::new()
            .route("/ok", get(|| async { "fine" }))
            .route("/moved", get(|| async { (StatusCode::FOUND, [("location", "/elsewhere")]) }))
            .route("/bad", get(|| async { StatusCode::SERVICE_UNAVAILABLE }));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(check(json!({ "httpGet": { "path": "/ok", "port": "web" } }), port).await, Ok(()));
        assert_eq!(check(json!({ "httpGet": { "path": "moved", "port": port } }), port).await, Ok(()));
        let failure = check(json!({ "httpGet": { "path": "/bad", "port": port } }), port).await.unwrap_err();
        assert_eq!(failure.to_string(), "HTTP probe failed with statuscode: 503");
        assert_eq!(check(json!({ "tcpSocket": { "port": port } }), port).await, Ok(()));
        server.abort();

        // Bound, so that nobody else gets the port, and not listening.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = closed.local_addr().unwrap().port();
        assert!(
            check(json!({ "tcpSocket": { "port": port } }), port).await.unwrap_err().to_string().contains("refused")
        );
        let refused = check(json!({ "grpc": { "port": port } }), port).await.unwrap_err().to_string();
        assert!(refused.contains("failed to connect service"), "{refused}");
        assert!(
            check(json!({ "httpGet": { "port": "none" } }), port)
                .await
                .unwrap_err()
                .to_string()
                .contains("invalid port")
        );
    }
}
