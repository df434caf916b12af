//! Quality of service: the class of a pod and what the kernel's OOM killer makes of it.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pods::{quantity, spec};

const CLASSES: [&str; 3] = ["Guaranteed", "Burstable", "BestEffort"];

/// `Guaranteed`, `Burstable` or `BestEffort`: what the API has given the pod, as the kubelet; of a pod that it has not
/// seen yet, by the containers' requests and limits.
pub fn qos_class(pod: &Pod) -> &'static str {
    let given = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    if let Some(class) = given.and_then(|given| CLASSES.into_iter().find(|class| *class == given)) {
        return class;
    }
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;

    use super::*;

    #[test]
    fn the_class_that_the_api_gave_counts() {
        let of = |given: Option<&str>| {
            let status = given.map(|class| PodStatus { qos_class: Some(class.into()), ..PodStatus::default() });
            qos_class(&Pod { status, ..Pod::default() })
        };
        assert_eq!(of(Some("Guaranteed")), "Guaranteed", "by the resources of the pod as a whole");
        assert_eq!([of(None), of(Some("")), of(Some("none of them"))], ["BestEffort"; 3]);
    }
}
