//! Capabilities: the baseline has those that runtimes give anyway, the restricted level none but one.

use super::{PodView, Texts, Violation, named, quoted};
use crate::kinds::reading::{as_text, items};

const USUAL: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Nothing is added but what is usual.
pub fn baseline(pod: PodView<'_>) -> Option<Violation> {
    let (containers, added) = adding(pod, |capability| USUAL.contains(&capability));
    (!containers.is_empty()).then_some(())?;
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", named(&containers), quoted(added));
    Violation::new("non-default capabilities", detail)
}

/// All are dropped; `NET_BIND_SERVICE` may be added.
pub fn restricted_22(pod: PodView<'_>) -> Option<Violation> {
    let drops_all = |list| items(list).any(|capability| capability == "ALL");
    let keeping = pod.containers_where(|container| !drops_all(&container["securityContext"]["capabilities"]["drop"]));
    let (containers, added) = adding(pod, |capability| capability == "NET_BIND_SERVICE");
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !containers.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&containers),
            quoted(added)
        ));
    }
    (!details.is_empty()).then(|| Violation { reason: "unrestricted capabilities", detail: details.join("; ") })
}

/// From 1.25 on a pod of Windows need not say so.
pub fn restricted_25(pod: PodView<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { restricted_22(pod) }
}

/// The containers that add what is not allowed, and what that is.
fn adding<'a>(pod: PodView<'a>, allowed: impl Fn(&str) -> bool) -> (Vec<&'a str>, Texts<'a>) {
    let mut added = Texts::new();
    let containers = pod.containers_where(|container| {
        let list = items(&container["securityContext"]["capabilities"]["add"]).map(as_text);
        let wrong: Vec<&str> = list.filter(|capability| !allowed(capability)).collect();
        added.extend(&wrong);
        !wrong.is_empty()
    });
    (containers, added)
}
