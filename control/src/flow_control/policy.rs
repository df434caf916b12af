//! All FlowSchemas at one moment, ready for a request to be classified: an immutable snapshot that readers share.

use std::{hash::BuildHasher, sync::Arc};

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response};

use super::{
    classification::{Distinguisher, FlowRule},
    fair_queuing::ArrivingWork,
    flow_stats::FlowStats,
    priority_level::PriorityLevel,
    seat::Seat,
    seat_holders::SeatHolder,
    shares,
};
use crate::{identity::Identity, request::RequestInfo};

/// Which FlowSchema took a request.
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
/// Which level it has.
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The FlowSchemas in the order in which they are asked. Never empty: the last is `catch-all`, or comes after it.
#[derive(Debug)]
pub struct FlowPolicy {
    /// In order.
    pub schemas: Vec<Arc<FlowSchema>>,
    /// The one that takes what no other does.
    pub catch_all: Arc<FlowSchema>,
}

/// A FlowSchema with its level.
#[derive(Debug)]
pub struct FlowSchema {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID, which answers tell; empty where it is not stored.
    pub uid: HeaderValue,
    /// That of its level.
    pub level_uid: HeaderValue,
    /// What tells its flows apart.
    pub distinguisher: Option<Distinguisher>,
    /// Which requests are its.
    pub rules: Vec<FlowRule>,
    /// Where they go.
    pub level: Arc<PriorityLevel>,
    /// The most seats that one of them takes.
    pub max_width: usize,
    /// What is counted of them.
    pub stats: Arc<FlowStats>,
}

impl FlowPolicy {
    /// The schema of a request.
    pub fn classify(&self, identity: &Identity, info: &RequestInfo) -> &Arc<FlowSchema> {
        let matches = |schema: &&Arc<FlowSchema>| schema.rules.iter().any(|rule| rule.matches(identity, info));
        self.schemas.iter().find(matches).unwrap_or(&self.catch_all)
    }
}

impl FlowSchema {
    /// What decides over a request's place in the level. `hasher` has a secret key: nobody finds names that share the
    /// queues of another flow.
    pub fn work(&self, hasher: &impl BuildHasher, user: &Identity, info: &RequestInfo, width: usize) -> ArrivingWork {
        let is_heartbeat = Seat::is_for_heartbeat(user, info);
        let user = user.name.as_str();
        let distinguisher = self.distinguisher.map_or("", |by| by.value(user, info));
        let namespace = shares::namespace_of(user).map(|namespace| hasher.hash_one(("namespace", namespace)));
        let holder = SeatHolder { user: hasher.hash_one(user), namespace };
        ArrivingWork { flow: hasher.hash_one((&*self.name, distinguisher)), holder, width, is_heartbeat }
    }

    /// Tells the client which schema and level its request had. By UID, as in Kubernetes: a name might tell too much.
    pub fn mark(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.insert(SCHEMA_UID, self.uid.clone());
        headers.insert(LEVEL_UID, self.level_uid.clone());
    }
}
