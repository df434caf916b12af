//! An API client whose credentials are replaced while it is in use: clones use the new ones too.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use kube::{Client, client::Body};

/// How the agent names itself.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("fairlead/", env!("CARGO_PKG_VERSION")));

/// Replaces what stands behind a [`Client`].
#[derive(Clone)]
pub struct LiveClient {
    current: Arc<ArcSwap<Client>>,
}

impl LiveClient {
    /// A client that hands every request to `first`, and later to what replaces it.
    pub fn new(first: Client) -> (Client, Self) {
        let namespace = first.default_namespace().to_owned();
        let live = Self { current: Arc::new(ArcSwap::from_pointee(first)) };
        (Client::new(live.clone(), namespace), live)
    }

    /// Used for every request from now on. Requests under way stay on their connections.
    pub fn replace(&self, next: Client) {
        self.current.store(Arc::new(next));
    }
}

impl tower::Service<Request<Body>> for LiveClient {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The fields that it writes are kept under this name.
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        let client = self.current.load_full();
        Box::pin(async move { client.send(request).await })
    }
}
