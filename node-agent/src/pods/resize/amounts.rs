//! CPU and memory as numbers: of one container, and what a whole pod requests.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use serde::{Deserialize, Serialize};

use crate::pods::{quantity, spec};

/// The resources of a container that can be changed in place: thousandths of a core, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Amounts {
    pub cpu_request: Option<i64>,
    pub cpu_limit: Option<i64>,
    pub memory_request: Option<i64>,
    pub memory_limit: Option<i64>,
}

type List = BTreeMap<String, Quantity>;

impl Amounts {
    /// Those of a container's resources.
    pub fn of(resources: Option<&ResourceRequirements>) -> Self {
        let amount = |list: Option<&List>, resource: &str| quantity::in_unit_of(resource, list?.get(resource)?);
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        Self {
            cpu_request: amount(requests, "cpu"),
            cpu_limit: amount(limits, "cpu"),
            memory_request: amount(requests, "memory"),
            memory_limit: amount(limits, "memory"),
        }
    }

    /// As a container's label has them.
    pub fn to_label(self) -> String {
        let part = |amount: Option<i64>| amount.map_or_else(String::new, |amount| amount.to_string());
        [self.cpu_request, self.cpu_limit, self.memory_request, self.memory_limit].map(part).join(",")
    }

    /// From a container's label; `None` where it has none, or somebody else's.
    pub fn from_label(label: &str) -> Option<Self> {
        let parts: Vec<_> = label.split(',').collect();
        let [cpu_request, cpu_limit, memory_request, memory_limit] = parts[..] else { return None };
        let amount = |part: &str| if part.is_empty() { Some(None) } else { part.parse().ok().map(Some) };
        Some(Self {
            cpu_request: amount(cpu_request)?,
            cpu_limit: amount(cpu_limit)?,
            memory_request: amount(memory_request)?,
            memory_limit: amount(memory_limit)?,
        })
    }

    /// Relative weight, 1024 for each core: of the request, or of the limit where nothing is requested; the least there
    /// is without either.
    pub fn cpu_shares(&self) -> i64 {
        let milli = self.cpu_request.or(self.cpu_limit).unwrap_or_default();
        (milli.saturating_mul(1024) / 1000).clamp(2, 262_144)
    }

    /// Microseconds of CPU in each 100 ms, at least the 1000 that the kernel takes.
    pub fn cpu_quota_us(&self) -> Option<i64> {
        self.cpu_limit.filter(|milli| *milli > 0).map(|milli| milli.saturating_mul(100).max(1000))
    }

    /// The kernel's memory limit.
    pub fn memory_bytes(&self) -> Option<i64> {
        self.memory_limit.filter(|bytes| *bytes > 0)
    }

    /// `resources` with these amounts in the place of its CPU and memory. A quantity that says the same stays as it is
    /// written.
    pub fn shown_in(&self, resources: &ResourceRequirements) -> ResourceRequirements {
        let mut shown = resources.clone();
        set(&mut shown.requests, "cpu", self.cpu_request);
        set(&mut shown.requests, "memory", self.memory_request);
        set(&mut shown.limits, "cpu", self.cpu_limit);
        set(&mut shown.limits, "memory", self.memory_limit);
        shown
    }
}

fn set(list: &mut Option<List>, resource: &str, amount: Option<i64>) {
    let current = list.as_ref().and_then(|list| quantity::in_unit_of(resource, list.get(resource)?));
    if current == amount {
        return;
    }
    match amount {
        Some(amount) => {
            let text = match resource {
                "cpu" if amount % 1000 != 0 => format!("{amount}m"),
                "cpu" => (amount / 1000).to_string(),
                _ => binary(amount),
            };
            list.get_or_insert_default().insert(resource.to_owned(), Quantity(text));
        }
        None => {
            list.as_mut().map(|list| list.remove(resource));
            if list.as_ref().is_some_and(BTreeMap::is_empty) {
                *list = None;
            }
        }
    }
}

/// In the largest binary unit that leaves no fraction: `20Mi`.
fn binary(bytes: i64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let steps = if bytes == 0 { 0 } else { (bytes.trailing_zeros() / 10).min(6) };
    format!("{}{}", bytes >> (10 * steps), units[steps as usize])
}

/// What a pod requests of its node: thousandths of a core, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub cpu: i64,
    pub memory: i64,
}

impl Requests {
    /// Of the whole pod: its app containers and sidecars at once, or the init container that needs more, and its
    /// overhead. Source: `PodRequests` of k8s.io/component-helpers/resource.
    pub fn of(pod: &Pod) -> Self {
        let mut total = spec::app_containers(pod).map(Self::of_container).fold(Self::default(), Self::plus);
        let (mut sidecars, mut most_of_init) = (Self::default(), Self::default());
        for container in spec::init_containers(pod) {
            let requests = Self::of_container(container);
            if spec::is_sidecar(container) {
                total = total.plus(requests);
                sidecars = sidecars.plus(requests);
                most_of_init = most_of_init.max(sidecars);
            } else {
                most_of_init = most_of_init.max(requests.plus(sidecars));
            }
        }
        total = total.max(most_of_init);
        let Some(spec) = &pod.spec else { return total };
        let of_pod = Amounts::of(spec.resources.as_ref());
        total = Self {
            cpu: of_pod.cpu_request.unwrap_or(total.cpu),
            memory: of_pod.memory_request.unwrap_or(total.memory),
        };
        let overhead = |resource: &str| quantity::in_unit_of(resource, spec.overhead.as_ref()?.get(resource)?);
        total.plus(Self { cpu: overhead("cpu").unwrap_or_default(), memory: overhead("memory").unwrap_or_default() })
    }

    fn of_container(container: &Container) -> Self {
        let amounts = Amounts::of(container.resources.as_ref());
        Self { cpu: amounts.cpu_request.unwrap_or_default(), memory: amounts.memory_request.unwrap_or_default() }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    fn max(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_requests_what_runs_at_once_or_what_an_init_container_needs_alone() {
        let requests = |cpu: &str, memory: &str| json!({ "requests": { "cpu": cpu, "memory": memory } });
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "initContainers": [
                { "name": "side", "restartPolicy": "Always", "resources": requests("100m", "10") },
                { "name": "init", "resources": requests("1", "5") },
            ],
            "containers": [
                { "name": "a", "resources": requests("200m", "20") },
                { "name": "b", "resources": requests("300m", "30") },
            ],
            "overhead": { "cpu": "10m", "memory": "1" },
        } }))
        .unwrap();
        assert_eq!(Requests::of(&pod), Requests { cpu: 1110, memory: 61 });
        let mut whole = pod;
        whole.spec.as_mut().unwrap().resources = serde_json::from_value(requests("5", "7")).unwrap();
        assert_eq!(Requests::of(&whole), Requests { cpu: 5010, memory: 8 }, "the pod's own requests stand for all");
    }

    #[test]
    fn amounts_are_shown_as_they_are_written_where_they_say_the_same() {
        let resources: ResourceRequirements = serde_json::from_value(json!({
            "requests": { "cpu": "0.5", "memory": "1Ki", "example.com/gpu": "1" }, "limits": { "cpu": "1" } }))
        .unwrap();
        let amounts = Amounts::of(Some(&resources));
        assert_eq!(amounts.shown_in(&resources), resources);
        let other =
            Amounts { cpu_request: Some(250), cpu_limit: None, memory_request: Some(2048), memory_limit: Some(5) };
        let expected = json!({ "requests": { "cpu": "250m", "memory": "2Ki", "example.com/gpu": "1" },
            "limits": { "memory": "5" } });
        assert_eq!(serde_json::to_value(other.shown_in(&resources)).unwrap(), expected);
        assert_eq!(Amounts::of(Some(&other.shown_in(&resources))), other);
        assert_eq!(Amounts::from_label(&other.to_label()), Some(other));
        assert_eq!((Amounts::from_label(""), Amounts::from_label("1,2,3,x")), (None, None));
    }
}
