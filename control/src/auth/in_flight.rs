//! How many requests are handled at a time: so many that read, and so many that write. What comes beyond is refused at
//! once, and its client comes again a second later.
//!
//! Requests that may have no end are not counted, and the administrator always gets an answer. By which nodes show that
//! they live has seats of its own: whoever takes all others must not make nodes look dead. Seats are divided among
//! users ([`Shares`]), and no node takes those of another. A request has its seat from [`InFlight::enter`] until what
//! it started has ended and its answer is sent, even if its client has gone; but not while its client withholds its
//! body ([`Seat::read`]). Bodies that come and answers that go have memory of their own, divided in the same way.
//! Whatever decides who waits and who is refused stays behind these functions.
//!
//! Source: `WithMaxInFlightLimit` of `k8s.io/apiserver`.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};
use parking_lot::Mutex;

use super::shares::{Share, Shares};
use crate::{
    identity::{Identity, MASTERS},
    request::{RequestInfo, Verb, path::ResourcePath},
    status::Status,
};

/// The limits. Clones share the seats.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// `None` where there is no limit.
    reads: Option<Arc<Shares>>,
    writes: Option<Arc<Shares>>,
    heartbeats: Option<Arc<Shares>>,
    bodies: Arc<Shares>,
    heartbeat_bodies: Arc<Shares>,
    answers: Arc<Shares>,
    short_answers: Arc<Shares>,
}

/// Bytes of all bodies that have not come whole, or whose requests are being handled.
const BODIES: usize = 128 << 20;
/// The same of heartbeats, which nobody else's bodies may hold up: one has some tens of kilobytes.
const HEARTBEAT_BODIES: usize = 64 << 20;
const HEARTBEAT_BODIES_OF_A_NODE: usize = 4 << 20;
/// Bytes of all long answers that are being sent.
const ANSWERS: usize = 256 << 20;
/// The same of short ones, which are apart: there is always some, and a long answer may have to wait until no other is
/// being sent.
const SHORT_ANSWERS: usize = 64 << 20;
/// Heartbeats of one node at a time: its Lease and its status, and one more of each that its agent has given up on.
const HEARTBEATS_OF_A_NODE: usize = 4;

/// The right to be handled; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    user: String,
    /// Finds a seat where there is none.
    is_master: bool,
    is_heartbeat: bool,
    limits: InFlight,
    /// Which seats this is one of; `None` where they are not limited.
    seats: Option<Arc<Shares>>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    seat: Option<Share>,
    body: Option<Share>,
}

/// There is no seat for a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are in flight")]
pub struct TooMany;

impl Default for InFlight {
    fn default() -> Self {
        Self::new(0, 0)
    }
}

impl InFlight {
    /// At most so many requests that read, so many others, and as many heartbeats of nodes. 0 is no limit.
    pub fn new(reads: usize, writes: usize) -> Self {
        let seats = |count: usize, most_each: usize| (count > 0).then(|| Shares::new(count, most_each));
        Self {
            reads: seats(reads, usize::MAX),
            writes: seats(writes, usize::MAX),
            heartbeats: seats(writes, HEARTBEATS_OF_A_NODE),
            bodies: Shares::new(BODIES, usize::MAX),
            heartbeat_bodies: Shares::new(HEARTBEAT_BODIES, HEARTBEAT_BODIES_OF_A_NODE),
            answers: Shares::new(ANSWERS, usize::MAX),
            short_answers: Shares::new(SHORT_ANSWERS, usize::MAX),
        }
    }

    /// A seat for the request of a user, if there is one.
    pub fn enter(&self, identity: &Identity, info: &RequestInfo) -> Result<Seat, TooMany> {
        let reads = match info.verb {
            Verb::Get | Verb::List | Verb::Watch => true,
            // A path has no verb but its method.
            Verb::Other => matches!(info.method, Method::GET | Method::HEAD),
            _ => false,
        };
        let is_heartbeat = is_heartbeat(identity, info);
        let seats = match reads {
            _ if is_heartbeat => &self.heartbeats,
            true => &self.reads,
            false => &self.writes,
        };
        let seat = Seat {
            user: identity.name.clone(),
            is_master: identity.is_in(MASTERS),
            is_heartbeat,
            limits: self.clone(),
            seats: seats.clone(),
            held: Mutex::default(),
        };
        seat.take().map(|()| seat)
    }
}

impl Seat {
    fn take(&self) -> Result<(), TooMany> {
        let Some(seats) = &self.seats else { return Ok(()) };
        let taken = seats.take(&self.user, 1);
        if taken.is_none() && !self.is_master {
            return Err(TooMany);
        }
        self.held.lock().seat = taken;
        Ok(())
    }

    /// Waits for the body of the request. One that does not come takes no seat from others: it is given back for so
    /// long, and taken again once the body is there.
    pub async fn read<T>(&self, body: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        self.held.lock().seat = None;
        let body = body.await?;
        self.take().map_err(|too_many| too_many.to_status())?;
        Ok(body)
    }

    /// Has room for so many bytes of the body kept until the request has ended.
    pub fn keep_for_body(&self, bytes: usize) -> Result<(), Status> {
        let mut held = self.held.lock();
        let kept = match &mut held.body {
            Some(body) => body.grow(bytes),
            None => {
                let bodies = if self.is_heartbeat { &self.limits.heartbeat_bodies } else { &self.limits.bodies };
                held.body = bodies.take(&self.user, bytes);
                held.body.is_some()
            }
        };
        if kept || self.is_master { Ok(()) } else { Err(TooMany.to_status()) }
    }

    /// Room for an answer of so many bytes. What has changed something is always told.
    pub fn keep_for_answer(&self, bytes: usize, is_read: bool) -> Result<Share, TooMany> {
        self.keep(&self.limits.answers, bytes, is_read)
    }

    /// The same for a short one.
    pub fn keep_for_short_answer(&self, bytes: usize, is_read: bool) -> Result<Share, TooMany> {
        self.keep(&self.limits.short_answers, bytes, is_read)
    }

    fn keep(&self, answers: &Arc<Shares>, bytes: usize, is_read: bool) -> Result<Share, TooMany> {
        match is_read && !self.is_master {
            true => answers.take_or_first_of_free(&self.user, bytes).ok_or(TooMany),
            false => Ok(answers.take_anyway(&self.user, bytes)),
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
    /// The 429 where a body was waited for.
    fn to_status(&self) -> Status {
        Status::too_many_requests("Too many requests, please try again later.", 1, "TooManyRequests", &self.to_string())
    }

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
        let limits = InFlight::new(4, 1);
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
    #[test]
    fn no_user_takes_the_seats_of_others() {
        let limits = InFlight::new(400, 200);
        let user = |name: &str| Identity::authenticated(name.to_owned(), Vec::new());
        let enter = |name: &str| limits.enter(&user(name), &info("POST", "/api/v1/namespaces/a/pods"));
        let taken: Vec<Seat> = std::iter::from_fn(|| enter("system:serviceaccount:a:b").ok()).collect();
        assert_eq!(taken.len(), 77, "half of what its namespace may hold");
        assert!(enter("system:serviceaccount:a:c").is_ok() && enter("joe").is_ok());

        let node = |name: &str| Identity::authenticated(format!("system:node:{name}"), vec!["system:nodes".into()]);
        let beat = |name: &str| {
            let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
            limits.enter(&node(name), &info("PUT", &lease))
        };
        let taken: Vec<Seat> = std::iter::from_fn(|| beat("stolen").ok()).collect();
        assert_eq!(taken.len(), HEARTBEATS_OF_A_NODE);
        assert!(beat("other").is_ok());
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_takes_no_seat() {
        let limits = InFlight::new(1, 1);
        let user = Identity::authenticated("joe".into(), Vec::new());
        let post = info("POST", "/api/v1/namespaces/a/pods");
        let waiting = limits.enter(&user, &post).unwrap();
        let (send, body) = tokio::sync::oneshot::channel();
        let read = waiting.read(async { Ok(body.await.ok()) });
        let mut read = std::pin::pin!(read);
        assert!(futures::poll!(read.as_mut()).is_pending());
        let other = limits.enter(&user, &post).expect("the one that waits has no seat");
        send.send("body").unwrap();
        assert_eq!(read.await.unwrap_err().code, 429, "it comes again");
        drop(other);
        assert_eq!(waiting.read(async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(limits.enter(&user, &post).unwrap_err(), TooMany, "it has its seat again");
    }

    #[test]
    fn the_memory_of_bodies_and_answers_is_bounded_for_each_user() {
        let limits = InFlight::new(0, 0);
        let enter = |name: &str| {
            let user = Identity::authenticated(name.to_owned(), Vec::new());
            limits.enter(&user, &info("POST", "/api/v1/namespaces/a/pods")).unwrap()
        };
        let (joe, ann) = (enter("joe"), enter("ann"));
        let mut kept = 0;
        while joe.keep_for_body(1 << 20).is_ok() {
            kept += 1;
        }
        assert_eq!(kept, BODIES >> 21);
        assert!(ann.keep_for_body(3 << 20).is_ok());
        drop(joe);
        let joe = enter("joe");
        assert!(joe.keep_for_body(3 << 20).is_ok(), "what it held is free again");

        let large = joe.keep_for_answer(2 * ANSWERS, true).expect("the first is always sent");
        assert_eq!(joe.keep_for_answer(1, true).unwrap_err(), TooMany);
        assert!(joe.keep_for_answer(1, false).is_ok(), "what changed something is told");
        drop(large);
        assert!(joe.keep_for_answer(1, true).is_ok());
    }

    #[test]
    fn the_bodies_of_others_leave_room_for_those_of_heartbeats() {
        let limits = InFlight::new(0, 0);
        let post = info("POST", "/api/v1/namespaces/a/pods");
        let users = (0..40).map(|index| Identity::authenticated(format!("user-{index}"), Vec::new()));
        let seats: Vec<Seat> = users.map(|user| limits.enter(&user, &post).unwrap()).collect();
        for seat in &seats {
            while seat.keep_for_body(16 << 10).is_ok() {}
        }
        let node = Identity::authenticated("system:node:n".into(), vec!["system:nodes".into()]);
        let beat = limits.enter(&node, &info("PUT", "/api/v1/nodes/n/status")).unwrap();
        assert!(beat.keep_for_body(1 << 20).is_ok());
        assert!(beat.keep_for_body(HEARTBEAT_BODIES_OF_A_NODE).is_err(), "a node has its share");
    }
}
