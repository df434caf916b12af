//! What an earlier agent left running, as the state of a pod: from the containers' labels, and from the status it wrote
//! last.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    resize::Amounts,
    spec,
    state::{EndedInstance, Instance, PodState, Sandbox},
};
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
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        for status in lists.into_iter().flatten().flatten() {
            let Some(container) = self.containers.get_mut(&status.name) else { continue };
            container.image_id = Some(status.image_id.clone()).filter(|id| !id.is_empty());
            let reported = status.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id);
            if reported.is_some() && reported == container.instance.id() {
                container.health.started = status.started.unwrap_or_default();
                container.health.ready = status.ready;
            }
        }
    }

    /// Takes over what the running containers were `given` after their creation. One of which nothing is noted counts
    /// as created with what `allocated` says.
    pub fn resume_amounts(&mut self, allocated: &Pod, given: impl Fn(&str) -> Option<Amounts>) {
        for (name, container) in &mut self.containers {
            let noted = container.instance.id().and_then(&given).or(container.actuated);
            let spec = || spec::container(allocated, name);
            container.actuated = noted.or_else(|| Some(Amounts::of(spec()?.resources.as_ref())));
        }
    }

    /// Takes over that an earlier agent stopped containers to run them again with other resources.
    pub fn resume_restarts(&mut self, is_restarting: impl Fn(&str) -> bool) {
        for container in self.containers.values_mut().filter(|container| !container.instance.is_live()) {
            container.restarts_for_resize = container.last.as_ref().is_some_and(|last| is_restarting(&last.id));
        }
    }

    fn adopt_one(&mut self, container: Container) {
        let Container { id, owner, image_id, state } = container;
        let Role::Container { name, hash, sandbox, resources } = owner.role else {
            if let Sandbox::Found { id: older, .. } | Sandbox::Dead { id: older } = std::mem::take(&mut self.sandbox) {
                self.garbage.push(older);
            }
            self.sandboxes = owner.attempt.saturating_add(1);
            self.sandbox = match state {
                State::Running { .. } => Sandbox::Found { id, adopt_at: Timestamp::MIN },
                State::Created | State::Exited(_) => Sandbox::Dead { id },
            };
            return;
        };
        let mut garbage = None;
        let slot = self.container_mut(&name);
        slot.actuated = Amounts::from_label(&resources);
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
