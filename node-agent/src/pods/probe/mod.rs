//! Whether a container has started, is ready, and may live: thresholds, and what they mean for it.

mod counter;

use std::time::Duration;

pub use counter::Counter;
use k8s_openapi::api::core::v1::Container;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

/// What the probes of one instance have found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub started: bool,
    pub ready: bool,
    /// It is to be killed, and may be restarted.
    pub condemned: Option<Condemned>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    pub message: String,
    /// The probe's own `terminationGracePeriodSeconds`.
    pub grace: Option<Duration>,
}

impl Health {
    pub fn is_started(&self, container: &Container) -> bool {
        container.startup_probe.is_none() || self.started
    }

    pub fn is_ready(&self, container: &Container) -> bool {
        self.is_started(container) && (container.readiness_probe.is_none() || self.ready)
    }
}
