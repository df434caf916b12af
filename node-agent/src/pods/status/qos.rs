//! Quality of service: the class of a pod and what the kernel's OOM killer makes of it.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pods::{quantity, spec};

/// `Guaranteed`, `Burstable` or `BestEffort`, by the containers' requests and limits.
pub fn qos_class(pod: &Pod) -> &'static str {
    let (mut any, mut all_guaranteed) = (false, true);
    for container in spec::containers(pod) {
        for resource in ["cpu", "memory"] {
            let request = quantity::request(container, resource);
            let limit = quantity::limit(container, resource);
            any |= request.is_some() || limit.is_some();
            all_guaranteed &= limit.is_some() && request.or(limit) == limit;
        }
    }
    match (any, all_guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Positive values alone: without CAP_SYS_RESOURCE none below one's own can be had.
pub fn oom_score_adj(pod: &Pod, container: &Container, machine_memory: i64) -> i64 {
    match qos_class(pod) {
        "Guaranteed" => 0,
        "BestEffort" => 1000,
        _ => {
            let request = quantity::request(container, "memory").unwrap_or_default();
            1000i64.saturating_sub(request.saturating_mul(1000) / machine_memory.max(1)).clamp(3, 999)
        }
    }
}
