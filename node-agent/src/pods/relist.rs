//! What a list of the runtime's containers means for a pod: pure. Whatever event was lost, the next list makes up for
//! it.

use std::collections::HashSet;

use super::state::{Finish, Instance, PodState, Sandbox};
use crate::runtime::Summary;

impl PodState {
    /// Whether `id` is a container or sandbox whose end the state does not know yet.
    pub fn may_run(&self, id: &str) -> bool {
        self.running_ids().any(|running| running == id)
    }

    /// Containers and the sandbox that should run and do not in `listed`. The list may be older than the state: each is
    /// to be looked at.
    pub fn unlisted(&self, listed: &[Summary]) -> Vec<String> {
        let running: HashSet<&str> = listed.iter().filter(|one| one.is_running).map(|one| one.id.as_str()).collect();
        self.running_ids().filter(|id| !running.contains(id)).map(str::to_owned).collect()
    }

    /// Whether `listed` changes nothing: every container is known, and runs where it should.
    pub fn agrees_with(&self, listed: &[Summary]) -> bool {
        listed.iter().all(|one| self.knows(&one.id)) && self.unlisted(listed).is_empty()
    }

    /// Has those of `listed` removed that are of no use: a creation whose answer was lost, a removal that failed.
    pub fn discard_unknown(&mut self, listed: &[Summary]) {
        let in_flight = self.containers.values().any(|container| container.instance == Instance::Creating)
            || matches!(self.sandbox, Sandbox::Making { id: None } | Sandbox::Removing)
            || self.finish != Finish::NotYet;
        if in_flight {
            return;
        }
        let unknown: Vec<String> = listed.iter().filter(|one| !self.knows(&one.id)).map(|one| one.id.clone()).collect();
        self.garbage.extend(unknown);
    }

    /// Container `id` is being started, or its postStart hook runs.
    pub fn is_starting(&self, id: &str) -> bool {
        self.containers.values().any(|container| {
            let instance = &container.instance;
            matches!(instance, Instance::Starting { .. } | Instance::PostStart { .. }) && instance.id() == Some(id)
        })
    }

    fn running_ids(&self) -> impl Iterator<Item = &str> {
        let sandbox = if let Sandbox::Ready { id, .. } = &self.sandbox { Some(id.as_str()) } else { None };
        let instances = self.containers.values().map(|container| &container.instance);
        let running = instances.filter(|instance| instance.is_live()).filter_map(Instance::id);
        sandbox.into_iter().chain(running)
    }

    fn knows(&self, id: &str) -> bool {
        let sandbox = match &self.sandbox {
            Sandbox::Dead { id } => Some(id.as_str()),
            other => other.id(),
        };
        let of_containers = self.containers.values().any(|container| {
            let ended = container.last.iter().chain(&container.previous);
            container.instance.id() == Some(id) || ended.into_iter().any(|ended| ended.id == id)
        });
        sandbox == Some(id) || of_containers || self.garbage.iter().any(|known| known == id)
    }
}
