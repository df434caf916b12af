//! Seccomp profiles: no pod runs without one where it says so, and in the restricted level each pod says one.

use serde_json::Value;

use super::{PodView, Texts, Violation, named, plural, quoted};
use crate::kinds::reading::text;

const REASON: &str = "seccompProfile";
const POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Before 1.19 there were annotations.
pub fn annotations(pod: PodView<'_>) -> Option<Violation> {
    let of_containers = pod.containers().map(|container| format!("{CONTAINER_ANNOTATION}{}", text(container, "name")));
    let keys = std::iter::once(POD_ANNOTATION.to_owned()).chain(of_containers);
    let mut forbidden: Vec<String> = keys
        .filter_map(|key| {
            let value = pod.annotations.get(&key)?.as_str()?;
            let allowed = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!allowed).then(|| format!("{key}={value:?}"))
        })
        .collect();
    forbidden.sort_unstable();
    forbidden.dedup();
    (!forbidden.is_empty()).then_some(())?;
    let word = plural(forbidden.len(), "annotation", "annotations");
    Violation::new(REASON, format!("forbidden {word} {}", forbidden.join(", ")))
}

/// What is said must be the profile of the runtime or one of the host.
pub fn baseline(pod: PodView<'_>) -> Option<Violation> {
    let mut types = Texts::new();
    let setters = pod.setters(|context| {
        let wrong = profile(context).filter(|kind| !is_valid(kind));
        types.extend(wrong);
        wrong.is_some()
    });
    (!setters.is_empty()).then_some(())?;
    let detail =
        format!("{} must not set securityContext.seccompProfile.type to {}", setters.join(" and "), quoted(types));
    Violation::new(REASON, detail)
}

/// It must be said, too.
pub fn restricted_19(pod: PodView<'_>) -> Option<Violation> {
    let wrong = baseline(pod);
    if wrong.is_some() || profile(&pod.spec["securityContext"]).is_some() {
        return wrong;
    }
    let silent = pod.containers_where(|container| profile(&container["securityContext"]).is_none());
    (!silent.is_empty()).then_some(())?;
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named(&silent)
    );
    Violation::new(REASON, detail)
}

/// From 1.25 on a pod of Windows need not say so.
pub fn restricted_25(pod: PodView<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { restricted_19(pod) }
}

/// The type of the profile that a security context names.
fn profile(context: &Value) -> Option<&str> {
    let profile = &context["seccompProfile"];
    (!profile.is_null()).then(|| text(profile, "type"))
}

fn is_valid(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}
