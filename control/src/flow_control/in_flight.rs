//! Limits of how many requests are handled at a time, without priorities: so many that read, and so many that write.
//! What comes beyond is refused at once, and its client comes again a second later. For servers without API priority
//! and fairness.
//!
//! Requests that may have no end are not counted, and the administrator always gets an answer. Heartbeats of
//! nodes have seats of their own: whoever takes all others must not make nodes look dead. Seats are divided among
//! users ([`Shares`]), and no node takes those of another.
//!
//! Source: `WithMaxInFlightLimit` of `k8s.io/apiserver`.

use std::sync::Arc;

use http::Method;

use super::{
    fair_queuing::SEATS_OF_A_NODE,
    memory::RequestMemory,
    seat::{Seat, SeatSource},
    shares::Shares,
    too_many::TooMany,
};
use crate::{
    identity::Identity,
    request::{RequestInfo, Verb},
};

/// The limits. Clones share the seats.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// `None` where there is no limit.
    reads: Option<Arc<Shares>>,
    writes: Option<Arc<Shares>>,
    heartbeats: Option<Arc<Shares>>,
    memory: Arc<RequestMemory>,
}

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
            heartbeats: seats(writes, SEATS_OF_A_NODE),
            memory: Arc::default(),
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
        let seats = match reads {
            _ if Seat::is_for_heartbeat(identity, info) => &self.heartbeats,
            true => &self.reads,
            false => &self.writes,
        };
        let source = seats.clone().map_or(SeatSource::Unlimited, SeatSource::Shares);
        let seat = Seat::new(identity, info, self.memory.clone(), source);
        seat.take_at_once()?;
        Ok(seat)
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
        assert_eq!(enter(&user, "GET").unwrap_err(), TooMany::IN_A_SECOND);
        let write = enter(&user, "POST").unwrap();
        assert_eq!(enter(&user, "DELETE").unwrap_err(), TooMany::IN_A_SECOND);
        let master = Identity::control("kubernetes-admin");
        assert!(enter(&master, "GET").is_ok() && enter(&master, "POST").is_ok());
        let node = Identity::authenticated("system:node:n".into(), vec!["system:nodes".into()]);
        let beat = |who: &Identity, path: &str| limits.enter(who, &info("PATCH", path));
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
        drop(beat(&node, lease).expect("a heartbeat has a seat of its own"));
        drop(beat(&node, "/api/v1/nodes/n/status").expect("and so has the status"));
        assert_eq!(beat(&user, lease).unwrap_err(), TooMany::IN_A_SECOND);
        assert_eq!(beat(&node, "/api/v1/namespaces/a/pods/p/status").unwrap_err(), TooMany::IN_A_SECOND);
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
        assert_eq!(taken.len(), SEATS_OF_A_NODE);
        assert!(beat("other").is_ok());
    }
}
