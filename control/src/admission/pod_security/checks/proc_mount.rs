//! `/proc` is masked as runtimes do it.

use super::{PodView, Texts, Violation, named, quoted};

/// For all pods.
pub fn always(pod: PodView<'_>) -> Option<Violation> {
    let mut types = Texts::new();
    let containers = pod.containers_where(|container| {
        let wrong = container["securityContext"]["procMount"].as_str().filter(|mount| *mount != "Default");
        types.extend(wrong);
        wrong.is_some()
    });
    (!containers.is_empty()).then_some(())?;
    let detail = format!("{} must not set securityContext.procMount to {}", named(&containers), quoted(types));
    Violation::new("procMount", detail)
}

/// From 1.35 on a pod with a user namespace of its own may see all of it.
pub fn without_user_namespace(pod: PodView<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { always(pod) }
}
