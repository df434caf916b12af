//! From what the running containers have to what their pod was allocated: which are updated as they run, in which
//! order, and which must be restarted. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::Amounts;
use crate::pods::{
    spec,
    state::{Instance, PodState},
};

/// Which of its resources an update changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizedResource {
    /// Request and limit of CPU.
    Cpu,
    /// Limit of memory; a request alone is only noted.
    Memory,
}

/// One change of a running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Its name in the spec.
    pub container: String,
    /// The runtime's id.
    pub id: String,
    /// What is changed.
    pub resource: ResizedResource,
    /// What the container has before.
    pub from: Amounts,
    /// And after.
    pub to: Amounts,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Containers whose resize policy asks for a restart.
    pub restarts: Vec<String>,
    /// In order: memory before CPU, and of each what shrinks before what grows.
    pub updates: Vec<Update>,
}

/// The steps for the allocated `pod`.
pub fn steps(pod: &Pod, state: &PodState) -> Steps {
    let mut steps = Steps::default();
    let (mut memory, mut cpu) = (Vec::new(), Vec::new());
    for (container, id, from, to) in resized(pod, state) {
        let memory_differs = from.memory_limit != to.memory_limit || from.memory_request != to.memory_request;
        let cpu_differs = from.cpu_limit != to.cpu_limit || from.cpu_request != to.cpu_request;
        if (memory_differs && restarts(container, "memory")) || (cpu_differs && restarts(container, "cpu")) {
            steps.restarts.push(container.name.clone());
            continue;
        }
        let update =
            |resource, from, to| Update { container: container.name.clone(), id: id.to_owned(), resource, from, to };
        let with_memory = Amounts { memory_request: to.memory_request, memory_limit: to.memory_limit, ..from };
        if memory_differs {
            memory.push(update(ResizedResource::Memory, from, with_memory));
        }
        if cpu_differs {
            cpu.push(update(ResizedResource::Cpu, with_memory, to));
        }
    }
    // Stable: containers in the order of the spec otherwise.
    memory.sort_by_key(|update| grows(update.from.memory_limit, update.to.memory_limit));
    cpu.sort_by_key(|update| {
        let limit = (update.from.cpu_limit, update.to.cpu_limit);
        let (from, to) = if limit.0 == limit.1 { (update.from.cpu_request, update.to.cpu_request) } else { limit };
        grows(from, to)
    });
    steps.updates = memory;
    steps.updates.append(&mut cpu);
    steps
}

/// Whether containers of the pod do not have yet what they were allocated.
pub fn in_progress(pod: &Pod, state: &PodState) -> bool {
    let restarting = resizable(pod).any(|container| state.container(&container.name).restarts_for_resize);
    restarting || resized(pod, state).next().is_some()
}

/// Containers that run and have something else than was allocated: with their id, what they have and what they should.
fn resized<'a>(pod: &'a Pod, state: &'a PodState) -> impl Iterator<Item = (&'a Container, &'a str, Amounts, Amounts)> {
    resizable(pod).filter_map(|container| {
        let slot = state.container(&container.name);
        let Instance::Running { id, .. } = &slot.instance else { return None };
        let (from, to) = (slot.actuated?, Amounts::of(container.resources.as_ref()));
        (from != to).then_some((container, id.as_str(), from, to))
    })
}

/// App containers and sidecars: an init container runs to its end with what it has.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec::init_containers(pod).filter(|container| spec::is_sidecar(container)).chain(spec::app_containers(pod))
}

fn restarts(container: &Container, resource: &str) -> bool {
    let policies = container.resize_policy.iter().flatten();
    policies.into_iter().any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
}

/// Whether a limit grows; none is the highest.
fn grows(from: Option<i64>, to: Option<i64>) -> bool {
    to.unwrap_or(i64::MAX) > from.unwrap_or(i64::MAX)
}
