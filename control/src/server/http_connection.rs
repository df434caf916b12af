//! The HTTP of one connection: HTTP/2 where the client chose it in the handshake, else HTTP/1.
//!
//! Knows how long idle connections hold what; what a request may do is decided by the gate.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use fairlead_serving::idle_http1::IdleHttp1;
use futures::future::BoxFuture;
use hyper::{Request, Response, body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

type Stream = TokioIo<TlsStream<TcpStream>>;

/// An answer that is being made. In a box: a connection would else keep room for it while nothing is asked.
pub type Answered = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// What answers the requests of a connection.
pub trait RequestService:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answered> + Unpin
{
}

impl<S> RequestService for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answered> + Unpin
{
}

/// A connection; a future that ends with it.
pub enum HttpConnection<'c, S: RequestService> {
    Http1(Box<IdleHttp1<Stream, S>>),
    Http2(Pin<Box<auto::UpgradeableConnection<'c, Stream, S, TokioExecutor>>>),
}

impl<'c, S: RequestService> HttpConnection<'c, S> {
    /// Speaks what the handshake agreed on. Without that it is HTTP/1, as in Go's servers.
    pub fn new(stream: TlsStream<TcpStream>, service: S, http: &'c auto::Builder<TokioExecutor>) -> Self {
        let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = TokioIo::new(stream);
        match is_http_2 {
            true => Self::Http2(Box::pin(http.serve_connection_with_upgrades(stream, service))),
            false => Self::Http1(Box::new(IdleHttp1::serve(stream, service))),
        }
    }

    /// Ends it after the answers that are under way.
    pub fn graceful_shutdown(&mut self) {
        match self {
            Self::Http1(connection) => connection.graceful_shutdown(),
            Self::Http2(connection) => connection.as_mut().graceful_shutdown(),
        }
    }
}

impl<S: RequestService> Future for HttpConnection<'_, S> {
    type Output = Result<(), Box<dyn std::error::Error + Send + Sync>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Http1(connection) => Pin::new(connection).poll(cx),
            Self::Http2(connection) => connection.as_mut().poll(cx),
        }
    }
}
