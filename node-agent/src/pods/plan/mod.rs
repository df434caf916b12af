//! What to do next for one pod: a pure function of its spec, of what is known of it and of the time.
//!
//! It is asked after every change and answers with all actions that can begin now, each of which then counts as under
//! way, and with the time at which it wants to be asked again. It performs nothing and remembers nothing.

mod run;
mod stop;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    image::PullPolicy,
    resize::Update,
    spec,
    state::{Ended, Finish, PodState, Sandbox, Volumes},
};

/// One thing to do for a pod. Its result comes back as an [`super::outcome::Outcome`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes all volumes, and the hosts and resolver files.
    MountVolumes,
    /// Creates and starts a sandbox, and attaches it to the network.
    MakeSandbox { attempt: u32 },
    /// Asks for the address of a sandbox that already runs.
    AdoptSandbox { id: String },
    /// Finds or pulls the image of a container.
    GetImage { container: String, policy: PullPolicy },
    /// Creates a container in the sandbox.
    CreateContainer { container: String, attempt: u32, sandbox: String },
    /// Ends with the postStart hook.
    StartContainer { container: String, id: String },
    /// Begins with the preStop hook.
    StopContainer {
        container: String,
        id: String,
        grace: Duration,
        why: String,
        /// It is to run again with other resources.
        for_resize: bool,
    },
    /// Updates running containers, one after the other.
    Resize { updates: Vec<Update> },
    /// Takes the sandbox down, and gives its address back.
    RemoveSandbox { id: Option<String> },
    /// Removes containers that are of no use any more.
    RemoveContainers { ids: Vec<String> },
    /// The agent itself ends the pod.
    End(Ended),
    /// Nothing runs any more: releases the pod's resources on the node, and deletes the Pod in the API.
    Finish,
}

/// What to do now, and when to ask again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// All that can begin at once.
    pub actions: Vec<Action>,
    /// When the plan changes by the passing of time alone.
    pub wake: Option<Timestamp>,
    /// Containers that wait out a back-off, until when, and what is backed off from.
    pub backing_off: Vec<BackingOff>,
}

/// A container that waits before the next try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingOff {
    /// Its name in the spec.
    pub container: String,
    /// When the next try begins.
    pub until: Timestamp,
    /// What is tried again.
    pub cause: BackoffCause,
}

/// What is tried again after a back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffCause {
    /// The container ended and is to be restarted.
    Restart,
    /// Its image could not be pulled.
    Pull,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn back_off(&mut self, container: &str, until: Timestamp, cause: BackoffCause) {
        self.wake_at(until);
        self.backing_off.push(BackingOff { container: container.to_owned(), until, cause });
    }
}

/// The plan for `pod` in `state` at `now`. Equal arguments give equal plans.
pub fn plan(pod: &Pod, state: &PodState, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if !state.garbage.is_empty() {
        plan.actions.push(Action::RemoveContainers { ids: state.garbage.clone() });
    }
    if state.gone || pod.metadata.deletion_timestamp.is_some() {
        stop::stop(pod, state, now, &mut plan);
        let sandbox_gone = matches!(state.sandbox, Sandbox::Absent | Sandbox::Failed(_));
        if plan.actions.is_empty()
            && state.is_stopped()
            && sandbox_gone
            && state.volumes != Volumes::Mounting
            && state.finish == Finish::NotYet
        {
            plan.actions.push(Action::Finish);
        }
        return plan;
    }
    if state.ended.is_some() || spec::phase_is_final(pod) {
        stop::stop(pod, state, now, &mut plan);
        return plan;
    }
    if let Some(deadline) = spec::deadline(pod, state.started_at) {
        if now >= deadline {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            plan.actions.push(Action::End(Ended { reason: "DeadlineExceeded", message }));
            return plan;
        }
        plan.wake_at(deadline);
    }
    run::run(pod, state, now, &mut plan);
    plan
}
