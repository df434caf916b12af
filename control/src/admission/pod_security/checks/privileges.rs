//! Privileged containers, host processes of Windows, and the gain of privileges.

use super::{PodView, Violation, named};

/// No privileged container.
pub fn privileged(pod: PodView<'_>) -> Option<Violation> {
    let containers = pod.containers_where(|container| container["securityContext"]["privileged"] == true);
    (!containers.is_empty()).then_some(())?;
    Violation::new("privileged", format!("{} must not set securityContext.privileged=true", named(&containers)))
}

/// No process of the host.
pub fn host_process(pod: PodView<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| context["windowsOptions"]["hostProcess"] == true);
    (!setters.is_empty()).then_some(())?;
    let who = setters.join(" and ");
    Violation::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

/// No process gains more privileges than its parent has.
pub fn escalation_8(pod: PodView<'_>) -> Option<Violation> {
    let gains = |container: &serde_json::Value| container["securityContext"]["allowPrivilegeEscalation"] != false;
    let containers = pod.containers_where(gains);
    (!containers.is_empty()).then_some(())?;
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&containers));
    Violation::new("allowPrivilegeEscalation != false", detail)
}

/// From 1.25 on a pod of Windows need not say so.
pub fn escalation_25(pod: PodView<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { escalation_8(pod) }
}
