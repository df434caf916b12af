//! How many requests are handled at a time: so many that read, and so many that write. What comes beyond is refused at
//! once, and its client comes again a second later.
//!
//! Requests that may have no end are not counted, and the administrator always gets an answer. By which nodes show that
//! they live has seats of its own: whoever takes all others must not make nodes look dead. A request has its seat from
//! [`InFlight::enter`] until its answer is made and what it started has ended, even if its client has gone; whatever
//! decides who waits and who is refused stays behind that function.
//!
//! Source: `WithMaxInFlightLimit` of `k8s.io/apiserver`.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    identity::{Identity, MASTERS},
    request::{RequestInfo, Verb, path::ResourcePath},
};

/// The limits. Clones share the seats.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    /// `None` where there is no limit.
    reads: Option<Arc<Semaphore>>,
    writes: Option<Arc<Semaphore>>,
    heartbeats: Option<Arc<Semaphore>>,
}

/// The right to be handled; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
}

/// There is no seat for a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are in flight")]
pub struct TooMany;

impl InFlight {
    /// At most so many requests that read, so many others, and as many heartbeats of nodes. 0 is no limit.
    pub fn new(reads: usize, writes: usize) -> Self {
        let seats = |count: usize| (count > 0).then(|| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))));
        Self { reads: seats(reads), writes: seats(writes), heartbeats: seats(writes) }
    }

    /// A seat for the request of a user, if there is one.
    pub fn enter(&self, identity: &Identity, info: &RequestInfo) -> Result<Seat, TooMany> {
        let reads = match info.verb {
            Verb::Get | Verb::List | Verb::Watch => true,
            // A path has no verb but its method.
            Verb::Other => matches!(info.method, Method::GET | Method::HEAD),
            _ => false,
        };
        let seats = match reads {
            _ if is_heartbeat(identity, info) => &self.heartbeats,
            true => &self.reads,
            false => &self.writes,
        };
        let Some(seats) = seats else { return Ok(Seat { _permit: None }) };
        match seats.clone().try_acquire_owned() {
            Ok(permit) => Ok(Seat { _permit: Some(permit) }),
            Err(_) if identity.is_in(MASTERS) => Ok(Seat { _permit: None }),
            Err(_) => Err(TooMany),
        }
    }
}

/// Whether a node shows by this request that it lives.
fn is_heartbeat(identity: &Identity, info: &RequestInfo) -> bool {
    let of_node = |path: &ResourcePath| match (&*path.group, &*path.resource, path.subresource.as_deref()) {
        ("coordination.k8s.io", "leases", None) => path.namespace.as_deref() == Some("kube-node-lease"),
        ("", "nodes", Some("status")) => true,
        _ => false,
    };
    identity.node().is_some() && info.resource().is_some_and(of_node)
}

impl TooMany {
    /// The 429, as Kubernetes sends it: no `Status`.
    pub fn to_response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from("Too many requests, please try again later.\n"));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        for (name, value) in [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::RETRY_AFTER, "1"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::info;

    #[test]
    fn reads_and_writes_have_seats_of_their_own_and_the_administrator_needs_none() {
        let limits = InFlight::new(2, 1);
        let user = Identity::authenticated("joe".into(), Vec::new());
        let enter = |who: &Identity, method: &str| limits.enter(who, &info(method, "/api/v1/namespaces/a/pods"));
        let first = enter(&user, "GET").unwrap();
        let _second = enter(&user, "GET").unwrap();
        assert_eq!(enter(&user, "GET").unwrap_err(), TooMany);
        let write = enter(&user, "POST").unwrap();
        assert_eq!(enter(&user, "DELETE").unwrap_err(), TooMany);
        let master = Identity::control("kubernetes-admin");
        assert!(enter(&master, "GET").is_ok() && enter(&master, "POST").is_ok());
        let node = Identity::authenticated("system:node:n".into(), vec!["system:nodes".into()]);
        let beat = |who: &Identity, path: &str| limits.enter(who, &info("PATCH", path));
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
        drop(beat(&node, lease).expect("a heartbeat has a seat of its own"));
        drop(beat(&node, "/api/v1/nodes/n/status").expect("and so has the status"));
        assert_eq!(beat(&user, lease).unwrap_err(), TooMany);
        assert_eq!(beat(&node, "/api/v1/namespaces/a/pods/p/status").unwrap_err(), TooMany);
        drop((first, write));
        assert!(enter(&user, "GET").is_ok() && enter(&user, "POST").is_ok());
        let unlimited = InFlight::new(0, 0);
        let held: Vec<Seat> = (0..1000).map(|_| unlimited.enter(&user, &info("GET", "/api")).unwrap()).collect();
        assert_eq!(held.len(), 1000);
        let path = InFlight::new(1, 1);
        let _get = path.enter(&user, &info("GET", "/version")).unwrap();
        assert!(path.enter(&user, &info("POST", "/api/v1/nodes")).is_ok(), "a path is read");
    }
}
