//! Whether a container has started, is ready, and may live: what its probes have found, and what that means for it.

mod check;
mod check_error;
mod counter;
mod grpc;
mod pace;
mod prober;

use std::time::Duration;

pub use check::{Check, Target};
pub use check_error::CheckError;
pub use counter::Counter;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
pub use prober::Probers;

use super::{
    deadline, spec,
    state::{Instance, PodState},
};

/// What a probe decides about its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Holds back the others until it succeeds once; its failure restarts the container.
    Startup,
    /// Whether Services send it clients.
    Readiness,
    /// Its failure restarts the container.
    Liveness,
}

impl ProbeKind {
    /// As events spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// The container's probe of this kind, if it has one.
    pub fn probe(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// One probe of one running container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeKey {
    /// Its name in the spec.
    pub container: String,
    /// The runtime's id: a new instance is probed anew.
    pub id: String,
    /// What the result decides.
    pub kind: ProbeKind,
}

/// A probe's thresholds were crossed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The probe that has decided.
    pub key: ProbeKey,
    /// Whether the success or the failure threshold was crossed.
    pub healthy: bool,
}

/// What the probes of one instance have found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerHealth {
    /// The startup probe has succeeded once.
    pub started: bool,
    /// The readiness probe's latest verdict.
    pub ready: bool,
    /// It is to be killed, and may be restarted.
    pub kill: Option<ProbeKill>,
}

/// Why a container is to be killed: a probe, or its postStart hook, failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeKill {
    /// As the event of the kill says it.
    pub message: String,
    /// The probe's own `terminationGracePeriodSeconds`.
    pub grace: Option<Duration>,
}

impl ContainerHealth {
    /// Its startup probe has succeeded, if it has one.
    pub fn is_started(&self, container: &Container) -> bool {
        container.startup_probe.is_none() || self.started
    }

    /// It has started, its readiness probe succeeds if it has one, and it is not about to be killed.
    pub fn is_ready(&self, container: &Container) -> bool {
        self.kill.is_none() && self.is_started(container) && (container.readiness_probe.is_none() || self.ready)
    }

    /// Records the verdict of the probe `kind` of `container`.
    pub fn record_verdict(&mut self, container: &Container, kind: ProbeKind, healthy: bool) {
        match kind {
            ProbeKind::Readiness => self.ready = healthy,
            ProbeKind::Startup if healthy => self.started = true,
            ProbeKind::Liveness if healthy => {}
            ProbeKind::Startup | ProbeKind::Liveness => {
                let grace = kind.probe(container).and_then(|probe| probe.termination_grace_period_seconds);
                let grace = grace.filter(|seconds| *seconds >= 0).map(deadline::seconds);
                let message = format!(
                    "Container {} failed {} probe, will be restarted",
                    container.name,
                    kind.name().to_lowercase()
                );
                self.kill = Some(ProbeKill { message, grace });
            }
        }
    }
}

/// The probes that should be at work: the startup probe alone until it succeeds, and readiness alone while a container
/// is stopped.
pub fn wanted(pod: &Pod, state: &PodState) -> Vec<ProbeKey> {
    let mut wanted = Vec::new();
    for container in spec::containers(pod) {
        let slot = state.container(&container.name);
        let kinds: &[ProbeKind] = match &slot.instance {
            Instance::Running { .. } if !slot.health.is_started(container) => &[ProbeKind::Startup],
            Instance::Running { .. } => &[ProbeKind::Readiness, ProbeKind::Liveness],
            Instance::Stopping { .. } => &[ProbeKind::Readiness],
            _ => &[],
        };
        let id = slot.instance.id().unwrap_or_default();
        let present = kinds.iter().filter(|kind| kind.probe(container).is_some());
        wanted.extend(present.map(|kind| ProbeKey {
            container: container.name.clone(),
            id: id.to_owned(),
            kind: *kind,
        }));
    }
    wanted
}
