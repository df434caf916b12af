//! What an earlier agent left running, as the state of a pod: from the containers' labels, and from the status it wrote
//! last.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::state::{EndedInstance, Instance, PodState, Sandbox};
use crate::runtime::{Container, Role, State};

impl PodState {
    /// The state of a pod whose containers `found` may already run (left by an earlier agent).
    pub fn adopt(started_at: Timestamp, found: Vec<Container>) -> Self {
        let mut state = Self { started_at, ..Default::default() };
        let mut found = found;
        found.sort_by_key(|container| container.owner.attempt);
        for container in found {
            state.adopt_one(container);
        }
        state
    }

    /// Takes over from the pod's status what an earlier agent knew of the running containers and could not store in the
    /// runtime.
    pub fn resume(&mut self, pod: &Pod) {
        let Some(status) = &pod.status else { return };
        for status in status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        {
            let Some(container) = self.containers.get_mut(&status.name) else { continue };
            container.image_id = Some(status.image_id.clone()).filter(|id| !id.is_empty());
            let reported = status.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id);
            if reported.is_some() && reported == container.instance.id() {
                container.health.started = status.started.unwrap_or_default();
                container.health.ready = status.ready;
            }
        }
    }

    fn adopt_one(&mut self, container: Container) {
        let Container { id, owner, image_id, state } = container;
        let Role::Container { name, hash, sandbox } = owner.role else {
            if let Sandbox::Found { id: older } | Sandbox::Dead { id: older } = std::mem::take(&mut self.sandbox) {
                self.garbage.push(older);
            }
            self.sandboxes = owner.attempt.saturating_add(1);
            self.sandbox = match state {
                State::Running { .. } => Sandbox::Found { id },
                State::Created | State::Exited(_) => Sandbox::Dead { id },
            };
            return;
        };
        let mut garbage = None;
        let slot = self.container_mut(&name);
        slot.attempts = owner.attempt.saturating_add(1);
        match state {
            State::Created => {
                slot.attempts = owner.attempt;
                garbage = Some(id);
            }
            State::Running { started_at, .. } => slot.instance = Instance::Running { id, sandbox, hash, started_at },
            State::Exited(exit) => {
                let ended = EndedInstance { id, sandbox, attempt: owner.attempt, image_id, exit, message: None };
                garbage = slot.end(ended);
            }
        }
        self.garbage.extend(garbage);
    }
}
