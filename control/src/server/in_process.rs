//! A `kube::Client` that calls the API's router directly: same handlers, same admission, no socket, no TLS, no gate.

use axum::{Router, body::Body};
use http::Request;
use tower::ServiceExt;

use crate::auth::Identity;

/// A client of `router` that acts as `identity`.
pub fn client(router: Router, identity: Identity) -> kube::Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(identity.clone());
        router.clone().oneshot(request)
    });
    kube::Client::new(service, "default")
}
