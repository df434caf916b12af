//! How much a pod may take as a whole: the sums over its containers as Kubernetes computes them, with init containers
//! and sidecars (KEP 753), pod-level resources, and what a resized pod still holds.
//!
//! Source: `k8s.io/component-helpers/resource`, and the copy of it in LimitRanger.

use std::collections::HashMap;

use serde_json::Value;

use super::amounts::{self, Amounts};
use crate::kinds::{
    quantity::Quantity,
    reading::{entries, first_by_name, items, text},
    resource_name::is_huge_page,
};

/// For whom a pod is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reckoning {
    /// LimitRanger: what the spec says, without overhead.
    Limits,
    /// ResourceQuota: with the overhead, and with what the status says of a pod whose resources were changed.
    Quota,
}

/// The sum of requests.
pub fn requests(pod: &Value, reckoning: Reckoning) -> Amounts {
    sum(pod, "requests", reckoning)
}

/// The sum of limits.
pub fn limits(pod: &Value, reckoning: Reckoning) -> Amounts {
    sum(pod, "limits", reckoning)
}

/// Whether a pod says for all of its containers how much they may take.
pub fn has_pod_level(pod: &Value) -> bool {
    let resources = &pod["spec"]["resources"];
    ["requests", "limits"].iter().any(|list| entries(&resources[*list]).any(|(name, _)| is_of_pods(name, true)))
}

/// Whether an init container runs beside the others, as long as the pod does.
pub fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn sum(pod: &Value, list: &str, reckoning: Reckoning) -> Amounts {
    let spec = &pod["spec"];
    let in_quota = reckoning == Reckoning::Quota;
    let is_infeasible = is_resize_infeasible(pod);
    let statuses = |statuses: &str| match in_quota {
        true => first_by_name(items(&pod["status"][statuses])),
        false => HashMap::new(),
    };
    let of = |container: &Value, statuses: &HashMap<&str, &Value>| {
        let said = amounts::read(&container["resources"][list]);
        match statuses.get(text(container, "name")) {
            Some(status) => with_status(status, is_infeasible, list, said),
            None => said,
        }
    };
    let mut all = Amounts::new();
    let of_apps = statuses("containerStatuses");
    for container in items(&spec["containers"]) {
        amounts::add(&mut all, &of(container, &of_apps));
    }
    let (of_sidecars, of_others) = (statuses("initContainerStatuses"), HashMap::new());
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in items(&spec["initContainers"]) {
        let sidecar = is_sidecar(container);
        let mut own = of(container, if sidecar { &of_sidecars } else { &of_others });
        if sidecar {
            amounts::add(&mut all, &own);
            amounts::add(&mut sidecars, &own);
        }
        // What it does not name, it changes nothing of: the sidecars before it were counted when they came.
        for (name, amount) in &mut own {
            let beside = sidecars.get(name).copied().unwrap_or(Quantity::ZERO);
            *amount = if sidecar { beside } else { amount.saturating_add(beside) };
        }
        amounts::raise(&mut starting, &own);
    }
    amounts::raise(&mut all, &starting);
    for (name, amount) in amounts::read(&spec["resources"][list]) {
        if is_of_pods(&name, in_quota) {
            all.insert(name, amount);
        }
    }
    if in_quota {
        let mut overhead = amounts::read(&spec["overhead"]);
        if list == "limits" {
            // Nothing limits what the containers do not limit.
            overhead.retain(|name, _| all.get(name).is_some_and(|limit| limit.is_positive()));
        }
        amounts::add(&mut all, &overhead);
    }
    all
}

/// Whether a pod as a whole can name the resource.
fn is_of_pods(name: &str, with_pages: bool) -> bool {
    matches!(name, "cpu" | "memory") || (with_pages && is_huge_page(name))
}

/// What a container holds while its resize is under way: the most of what it was given, has and asks for.
fn with_status(status: &Value, is_infeasible: bool, list: &str, said: Amounts) -> Amounts {
    if status["resources"].is_null() {
        return said;
    }
    let mut held = amounts::read(&status["resources"][list]);
    if list == "requests" {
        amounts::raise(&mut held, &amounts::read(&status["allocatedResources"]));
    }
    if !is_infeasible {
        amounts::raise(&mut held, &said);
    }
    held
}

fn is_resize_infeasible(pod: &Value) -> bool {
    items(&pod["status"]["conditions"])
        .any(|condition| text(condition, "type") == "PodResizePending" && text(condition, "reason") == "Infeasible")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    #[test]
    fn init_containers_run_one_by_one_beside_the_sidecars_before_them() {
        let mut sidecar = container("300m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {"containers": [container("100m"), container("200m")],
            "initContainers": [container("500m"), sidecar, container("400m")]}});
        // 100 + 200 + 300 while it runs; 500 and then 300 + 400 while it starts.
        assert_eq!(amounts::text(&requests(&pod, Reckoning::Limits)), "cpu=700m");
        assert_eq!(amounts::text(&limits(&pod, Reckoning::Quota)), "cpu=700m");
    }

    #[test]
    fn what_the_pod_says_goes_before_what_its_containers_say() {
        let pod = json!({"spec": {"containers": [container("100m")], "overhead": {"cpu": "50m", "memory": "1Mi"},
            "resources": {"requests": {"cpu": "1", "hugepages-2Mi": "2Mi"}}}});
        assert!(has_pod_level(&pod));
        assert_eq!(amounts::text(&requests(&pod, Reckoning::Limits)), "cpu=1");
        assert_eq!(amounts::text(&requests(&pod, Reckoning::Quota)), "cpu=1050m,hugepages-2Mi=2Mi,memory=1Mi");
        assert_eq!(amounts::text(&limits(&pod, Reckoning::Quota)), "cpu=150m");
    }

    #[test]
    fn a_container_holds_what_it_has_until_its_resize_is_done() {
        let mut pod = json!({"spec": {"containers": [container("100m")]}, "status": {"containerStatuses": [
            {"name": "c", "resources": {"requests": {"cpu": "300m"}}, "allocatedResources": {"cpu": "200m"}}]}});
        assert_eq!(amounts::text(&requests(&pod, Reckoning::Quota)), "cpu=300m");
        assert_eq!(amounts::text(&requests(&pod, Reckoning::Limits)), "cpu=100m");
        pod["spec"]["containers"][0] = container("500m");
        assert_eq!(amounts::text(&requests(&pod, Reckoning::Quota)), "cpu=500m");
        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        assert_eq!(amounts::text(&requests(&pod, Reckoning::Quota)), "cpu=300m");
    }
}
