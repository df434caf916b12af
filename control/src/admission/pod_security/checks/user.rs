//! Whom containers run as: not root, unless root in the pod is nobody on the host.

use super::{PodView, Violation, named};

/// Nobody runs as root, and each pod says so.
pub fn non_root_0(pod: PodView<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let setters = pod.setters(|context| context["runAsNonRoot"] == false);
    if !setters.is_empty() {
        let who = setters.join(" and ");
        return Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if pod.spec["securityContext"]["runAsNonRoot"] == true {
        return None;
    }
    let silent = pod.containers_where(|container| container["securityContext"]["runAsNonRoot"].is_null());
    (!silent.is_empty()).then_some(())?;
    Violation::new(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)))
}

/// From 1.35 on a pod with a user namespace of its own may run as root.
pub fn non_root_35(pod: PodView<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { non_root_0(pod) }
}

/// No user ID 0.
pub fn user_23(pod: PodView<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| context["runAsUser"] == 0);
    (!setters.is_empty()).then_some(())?;
    Violation::new("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}

/// From 1.35 on a pod with a user namespace of its own may have it.
pub fn user_35(pod: PodView<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { user_23(pod) }
}
