//! What limits the requests of a server: priority levels, or the two limits alone.

use std::sync::Arc;

use axum::body::Body;
use http::Response;

use super::{FlowControl, in_flight::InFlight, policy::FlowSchema, seat::Seat, too_many::TooMany};
use crate::{
    identity::Identity,
    request::{RequestInfo, Verb},
};

/// The limits of a server. Clones share them.
#[derive(Clone)]
pub enum RequestLimits {
    /// `--enable-priority-and-fairness=false`
    InFlight(InFlight),
    /// The default.
    PriorityAndFairness(FlowControl),
}

/// What came of a request at its limits.
pub struct Entered {
    /// Its seat, if it needs one; or its refusal.
    pub seat: Result<Option<Seat>, TooMany>,
    /// The schema that took it.
    flow: Option<Arc<FlowSchema>>,
}

impl RequestLimits {
    /// Waits for the turn of a request.
    ///
    /// What may have no end needs no seat, but for watches where there are levels: a watch has one until it has begun.
    /// Kubernetes has it keep that until its initial events are sent. Here these are made while the client takes them,
    /// so that a slow one would hold a seat for them, and what they take at a time is little. One that another server
    /// answers gives it back before it is sent on.
    pub async fn enter(
        &self,
        identity: &Identity,
        info: &RequestInfo,
        parts: &http::request::Parts,
        is_long_running: bool,
    ) -> Entered {
        match self {
            Self::InFlight(_) if is_long_running => Entered { seat: Ok(None), flow: None },
            Self::InFlight(limits) => Entered { seat: limits.enter(identity, info).map(Some), flow: None },
            Self::PriorityAndFairness(_) if is_long_running && info.verb != Verb::Watch => {
                Entered { seat: Ok(None), flow: None }
            }
            Self::PriorityAndFairness(control) => {
                let (flow, seat) = control.enter(identity, info, parts).await;
                Entered { seat: seat.map(Some), flow: Some(flow) }
            }
        }
    }
}

impl Entered {
    /// Takes the seat out, and leaves what the answer is marked with.
    pub fn into_parts(self) -> (Result<Option<Seat>, TooMany>, FlowMark) {
        (self.seat, FlowMark(self.flow))
    }
}

/// Which schema and level took a request, for its answer.
pub struct FlowMark(Option<Arc<FlowSchema>>);

impl FlowMark {
    /// Tells it in the headers of the answer.
    pub fn mark(&self, response: &mut Response<Body>) {
        if let Some(flow) = &self.0 {
            flow.mark(response);
        }
    }
}

impl From<InFlight> for RequestLimits {
    fn from(limits: InFlight) -> Self {
        Self::InFlight(limits)
    }
}

impl From<FlowControl> for RequestLimits {
    fn from(control: FlowControl) -> Self {
        Self::PriorityAndFairness(control)
    }
}
