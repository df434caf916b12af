//! Requests of many users, each with a client certificate, over HTTP/1.1 connections that stay open: what one of them
//! costs the client is little beside what it costs a server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fairlead_control::auth::pki::{Authority, CertificateSubject, Usage};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use kube::{client::ConfigExt, config::AuthInfo};
use tokio::{net::TcpSocket, task::JoinHandle};
use tokio_rustls::TlsConnector;

use crate::{contestant::Server, kit::Result};

/// How long one connection or answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The configuration of `server`'s administrator with the certificate of another user instead.
pub fn config_of(
    server: &kube::Config,
    authority: &Authority,
    user: &str,
    group: Option<&str>,
) -> Result<kube::Config> {
    let subject = CertificateSubject {
        common_name: user.into(),
        organization: group.map(Into::into),
        ..CertificateSubject::default()
    };
    let issued = authority.issue(&subject, Usage::Client, Duration::from_secs(86_400), SystemTime::now().into())?;
    let mut config = server.clone();
    config.auth_info = AuthInfo {
        client_certificate_data: Some(STANDARD.encode(&issued.certificate_pem)),
        client_key_data: Some(STANDARD.encode(&issued.key_pem).into()),
        ..AuthInfo::default()
    };
    Ok(config)
}

/// Makes connections as one user.
#[derive(Clone)]
pub struct Dialer {
    server: SocketAddr,
    tls: TlsConnector,
}

impl Dialer {
    pub fn new(config: &kube::Config) -> Result<Self> {
        let host = config.cluster_url.host().unwrap_or_default();
        let port = config.cluster_url.port_u16().ok_or("a server without a port")?;
        // Offers no protocol, which is HTTP/1.1.
        let tls = TlsConnector::from(Arc::new(config.rustls_client_config()?));
        Ok(Self { server: SocketAddr::new(host.parse()?, port), tls })
    }

    /// Connects from an address of loopback, to the end of the handshake.
    pub async fn connect(&self, from: Ipv4Addr) -> Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let connecting = async {
            let stream = socket.connect(self.server).await?;
            stream.set_nodelay(true)?;
            let stream = self.tls.connect(rustls::pki_types::ServerName::from(self.server.ip()), stream).await?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((sender, connection))
        };
        let (sender, connection) = tokio::time::timeout(PATIENCE, connecting).await??;
        let task = tokio::spawn(async move {
            // What goes wrong is seen by whoever asks.
            drop(connection.await);
        });
        Ok(Connection { sender, task })
    }

    /// So many connections, one after the other.
    pub async fn connections(&self, count: usize) -> Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(self.connect(Ipv4Addr::LOCALHOST).await?);
        }
        Ok(connections)
    }
}

/// An open connection; ends with the value.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request, as often as it is wanted.
#[derive(Clone, Debug)]
pub struct Question {
    pub method: &'static str,
    pub path: String,
    pub token: Option<String>,
    pub body: Bytes,
}

impl Question {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), token: None, body: Bytes::new() }
    }

    pub fn send(method: &'static str, path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self { method, path: path.into(), token: None, body: body.to_string().into() }
    }

    /// With a bearer token.
    pub fn by(self, token: &str) -> Self {
        Self { token: Some(format!("Bearer {token}")), ..self }
    }
}

impl Connection {
    /// The answer's body; an answer without success is an error.
    pub async fn ask(&mut self, question: &Question) -> Result<Bytes> {
        let mut request = http::Request::builder().method(question.method).uri(&question.path);
        request = request.header("Host", "server").header("Accept", "application/json");
        if let Some(token) = &question.token {
            request = request.header("Authorization", token);
        }
        if !question.body.is_empty() {
            request = request.header("Content-Type", "application/json");
        }
        let request = request.body(Full::new(question.body.clone()))?;
        let asked = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(PATIENCE, asked).await??;
        if !status.is_success() {
            let (method, path) = (question.method, &question.path);
            return Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(body)
    }
}

/// How fast a server answered.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub per_second: f64,
    /// Processor time of the server for one answer.
    pub processor_micros: f64,
}

/// Asks over all connections at once, one question at a time on each, until `duration` is over. Question `n` is the
/// answer of `question` for `n`; none left ends it.
pub async fn rate(
    server: &Server,
    connections: &mut [Connection],
    duration: Duration,
    question: impl Fn(usize) -> Option<Question>,
) -> Result<Rate> {
    let next = std::cell::Cell::new(0);
    let (start, before) = (Instant::now(), server.processor_seconds()?);
    let asking = connections.iter_mut().map(|connection| async {
        let mut answers = 0;
        while start.elapsed() < duration {
            let number = next.replace(next.get() + 1);
            let Some(question) = question(number) else { break };
            connection.ask(&question).await?;
            answers += 1;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answers)
    });
    let answers: usize = futures::future::try_join_all(asking).await?.into_iter().sum();
    let answers = answers as f64;
    let processor_micros = (server.processor_seconds()? - before) / answers * 1e6;
    Ok(Rate { per_second: answers / start.elapsed().as_secs_f64(), processor_micros })
}
