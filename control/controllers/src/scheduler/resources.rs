//! Amounts of CPU, memory and the rest: what a pod asks for and what a node has.
//!
//! A single amount is anything that 64 bits hold, as written by whoever makes the object. Sums have 128, so that no
//! number of pods overflows them, and what a pod took is given back exactly.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus},
    apimachinery::pkg::api::resource::Quantity,
};

use fairlead_kinds::kinds::quantity::{millis, units};

/// An amount, or a sum of amounts.
pub type Amount = i128;

/// Amounts of every resource. CPU in thousandths of a core, memory and storage in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: Amount,
    /// Bytes.
    pub memory: Amount,
    /// Bytes.
    pub ephemeral_storage: Amount,
    /// Extended resources, in units.
    pub extended: BTreeMap<String, Amount>,
}

impl Resources {
    /// Reads a list such as `requests` or `allocatable`. Unreadable amounts count as none: the API refuses them.
    pub fn read(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let millis = |text| Amount::from(millis(text).unwrap_or(0));
        let units = |text| Amount::from(units(text).unwrap_or(0));
        let mut read = Self::default();
        for (name, Quantity(text)) in list.into_iter().flatten() {
            match name.as_str() {
                "cpu" => read.cpu_milli = millis(text),
                "memory" => read.memory = units(text),
                "ephemeral-storage" => read.ephemeral_storage = units(text),
                "pods" => {}
                _ => {
                    read.extended.insert(name.clone(), units(text));
                }
            }
        }
        read
    }

    /// What the scheduler reserves for a pod: the sum of what runs at once, or the largest init container where that is
    /// more. While it is resized, a container holds the most of what it asks for, was allocated and has. Source:
    /// KEP-753 (sidecar containers) and KEP-1287 (resize in place).
    pub fn of_pod(spec: &PodSpec, status: Option<&PodStatus>) -> Self {
        let mut running = Self::default();
        let statuses = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let of_init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
        let is_infeasible = status.is_some_and(is_resize_infeasible);
        for container in &spec.containers {
            running.add(&Self::of_container(container).held(container, statuses, is_infeasible));
        }
        let mut sidecars = Self::default();
        let mut starting = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let mut request = Self::of_container(container);
            if container.restart_policy.as_deref() == Some("Always") {
                request = request.held(container, of_init, is_infeasible);
                sidecars.add(&request);
                starting.raise_to(&sidecars);
            } else {
                let mut during = sidecars.clone();
                during.add(&request);
                starting.raise_to(&during);
            }
        }
        running.add(&sidecars);
        running.raise_to(&starting);
        running.set_to(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
        running.add(&Self::read(spec.overhead.as_ref()));
        running
    }

    /// Replaces the amounts that a pod asks for as a whole. Source: KEP-2837 (pod-level resources).
    fn set_to(&mut self, list: Option<&BTreeMap<String, Quantity>>) {
        let whole = Self::read(list);
        for name in list.into_iter().flat_map(BTreeMap::keys) {
            match name.as_str() {
                "cpu" => self.cpu_milli = whole.cpu_milli,
                "memory" => self.memory = whole.memory,
                _ if name.starts_with("hugepages-") => {
                    self.extended.insert(name.clone(), whole.extended.get(name).copied().unwrap_or(0));
                }
                _ => {}
            }
        }
    }

    fn of_container(container: &Container) -> Self {
        let resources = container.resources.as_ref();
        let mut requests = Self::read(resources.and_then(|r| r.requests.as_ref()));
        // A limit without a request is a request.
        let limits = Self::read(resources.and_then(|r| r.limits.as_ref()));
        let named = |name: &str| resources.and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key(name));
        if !named("cpu") {
            requests.cpu_milli = limits.cpu_milli;
        }
        if !named("memory") {
            requests.memory = limits.memory;
        }
        if !named("ephemeral-storage") {
            requests.ephemeral_storage = limits.ephemeral_storage;
        }
        for (name, amount) in limits.extended {
            requests.extended.entry(name).or_insert(amount);
        }
        requests
    }

    /// What the container holds that asks for this.
    fn held(self, container: &Container, statuses: &[ContainerStatus], is_infeasible: bool) -> Self {
        let status = statuses.iter().find(|status| status.name == container.name);
        let Some((status, resources)) = status.and_then(|status| Some((status, status.resources.as_ref()?))) else {
            return self;
        };
        let mut held = Self::read(resources.requests.as_ref());
        held.raise_to(&Self::read(status.allocated_resources.as_ref()));
        if !is_infeasible {
            held.raise_to(&self);
        }
        held
    }

    /// Adds every amount of `other`.
    pub fn add(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let have = self.extended.entry(name.clone()).or_insert(0);
            *have = have.saturating_add(*amount);
        }
    }

    /// Takes away what [`Self::add`] added.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(other.cpu_milli);
        self.memory = self.memory.saturating_sub(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_sub(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            if let Some(have) = self.extended.get_mut(name) {
                *have = have.saturating_sub(*amount);
            }
        }
    }

    /// Whether this is more than `other` in any respect.
    pub fn exceeds(&self, other: &Self) -> bool {
        self.cpu_milli > other.cpu_milli
            || self.memory > other.memory
            || self.ephemeral_storage > other.ephemeral_storage
            || self.extended.iter().any(|(name, amount)| *amount > other.extended.get(name).copied().unwrap_or(0))
    }

    fn raise_to(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let have = self.extended.entry(name.clone()).or_insert(0);
            *have = (*have).max(*amount);
        }
    }
}

/// The node will never grant what the pod asks for.
fn is_resize_infeasible(status: &PodStatus) -> bool {
    let conditions = status.conditions.iter().flatten();
    conditions.into_iter().any(|one| one.type_ == "PodResizePending" && one.reason.as_deref() == Some("Infeasible"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_asks_for_the_larger_of_its_start_and_its_run() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "1", "memory": "10Mi"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "200m", "memory": "64Mi"}}},
                {"name": "b", "resources": {"limits": {"cpu": "300m", "example.com/gpu": "1"}}}]}))
        .expect("a valid spec");
        let asked = Resources::of_pod(&spec, None);
        assert_eq!((asked.cpu_milli, asked.memory), (1100, 64 << 20));
        assert_eq!(asked.extended["example.com/gpu"], 1);
        let whole: PodSpec = serde_json::from_value(json!({
            "resources": {"requests": {"cpu": "2"}}, "overhead": {"cpu": "100m"},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "200m", "memory": "64Mi"}}}]}))
        .expect("a valid spec");
        let asked = Resources::of_pod(&whole, None);
        assert_eq!((asked.cpu_milli, asked.memory), (2100, 64 << 20), "what the pod asks for as a whole comes first");
    }

    #[test]
    fn a_pod_that_is_resized_holds_the_most_of_what_it_asks_for_was_allocated_and_has() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "b", "resources": {"requests": {"cpu": "900m"}}}]}))
        .expect("a valid spec");
        let mut status: PodStatus = serde_json::from_value(json!({"containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": {"cpu": "200m"}, "resources": {"requests": {"cpu": "300m"}}},
            {"name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": {"cpu": "10m"}, "resources": {"requests": {"cpu": "10m"}}}]}))
        .expect("a valid status");
        assert_eq!(Resources::of_pod(&spec, Some(&status)).cpu_milli, 1200);
        let refused = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        status.conditions = serde_json::from_value(refused).expect("valid conditions");
        assert_eq!(Resources::of_pod(&spec, Some(&status)).cpu_milli, 310, "what is asked for is never granted");
    }

    #[test]
    fn the_largest_requests_add_up_and_are_given_back_exactly() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "9E", "memory": "9999Ei", "example.com/gpu": "9E"}}},
            {"name": "b", "resources": {"requests": {"cpu": "9E", "memory": "9999Ei", "example.com/gpu": "9E"}}}]}))
        .expect("a valid spec");
        let huge = Resources::of_pod(&spec, None);
        assert!(huge.memory > Amount::from(i64::MAX));
        let small = Resources { cpu_milli: 100, memory: 1, ..Default::default() };
        let mut sum = small.clone();
        sum.add(&huge);
        sum.subtract(&huge);
        assert_eq!((sum.cpu_milli, sum.memory), (100, 1));
    }
}
