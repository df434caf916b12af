//! A TLS server that counts its connections.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use kube::Config;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Bytes of `/list`.
pub const LIST: usize = 8 << 20;

pub struct Server {
    address: SocketAddr,
    ca_der: Vec<u8>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    closing: CancellationToken,
    watches_end: CancellationToken,
    flooded: watch::Sender<usize>,
}

impl Server {
    /// Speaks these protocols, most wanted first; without any it knows no ALPN.
    pub async fn start(protocols: &[&str]) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::new(Shared::default()));
        let (acceptor, served) = (TlsAcceptor::from(Arc::new(tls)), shared.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                served.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, acceptor.clone(), served.clone()));
            }
        });
        Self { address, ca_der: made.cert.der().to_vec(), shared }
    }

    /// Of a client that trusts this server.
    pub fn config(&self) -> Config {
        self.config_at(self.address)
    }

    /// The same; what it opens first ends before anything is said.
    pub async fn config_whose_first_connection_breaks(&self) -> Config {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), self.address);
        tokio::spawn(async move {
            drop(listener.accept().await.unwrap());
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = TcpStream::connect(target).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        });
        self.config_at(address)
    }

    /// Of a client that trusts this server, and reaches it at another address.
    pub fn config_at(&self, address: SocketAddr) -> Config {
        let mut config = Config::new(format!("https://{address}").parse().unwrap());
        config.root_cert = Some(vec![self.ca_der.clone()]);
        config
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Says on all connections that they will be closed.
    pub fn close_gracefully(&self) {
        self.shared.closing.cancel();
    }

    pub fn end_watches(&self) {
        self.shared.watches_end.cancel();
    }

    /// Waits until so many bytes of `/flood` were taken.
    pub async fn until_flooded(&self, bytes: usize) {
        self.shared.flooded.subscribe().wait_for(|sent| *sent >= bytes).await.unwrap();
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let closing = shared.closing.clone();
    let is_old = !closing.is_cancelled();
    let service = service_fn(move |request| {
        let (answer, is_never) = (answer(&request, shared.clone()), request.uri().path() == "/never");
        async move {
            if is_never {
                // Not even the head of an answer.
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http2().timer(TokioTimer::new()).max_concurrent_streams(250);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled(), if is_old => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Clients may go as they like.
    drop(ended);
}

fn answer(request: &Request<Incoming>, shared: Arc<Shared>) -> Response<BoxBody<Bytes, Infallible>> {
    let frame = |bytes: Bytes| Ok::<_, Infallible>(Frame::data(bytes));
    let body = match request.uri().path() {
        "/watch" => {
            let ended = async move { shared.watches_end.cancelled().await };
            let first = stream::iter([frame(Bytes::from_static(b"first\n"))]);
            BodyExt::boxed(StreamBody::new(first.chain(stream::pending().take_until(ended))))
        }
        "/flood" => {
            let piece = Bytes::from_static(&[b'x'; 1 << 14]);
            BodyExt::boxed(StreamBody::new(stream::repeat_with(move || {
                shared.flooded.send_modify(|sent| *sent += piece.len());
                frame(piece.clone())
            })))
        }
        "/list" => BodyExt::boxed(Full::new(Bytes::from(vec![b'y'; LIST]))),
        _ => BodyExt::boxed(Full::new(Bytes::from(format!("{:?}", request.version())))),
    };
    Response::new(body)
}
