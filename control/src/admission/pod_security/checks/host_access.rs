//! What a pod shares with its host: namespaces, paths and ports.

use std::collections::BTreeSet;

use super::{PodView, Violation, named, plural, quoted};
use crate::kinds::reading::{items, number, text};

/// No namespace of the host.
pub fn namespaces(pod: PodView<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!shared.is_empty()).then(|| Violation { reason: "host namespaces", detail: shared.join(", ") })
}

/// No path of the host.
pub fn paths(pod: PodView<'_>) -> Option<Violation> {
    let of_host = items(&pod.spec["volumes"]).filter(|volume| !volume["hostPath"].is_null());
    let volumes: Vec<&str> = of_host.map(|volume| text(volume, "name")).collect();
    (!volumes.is_empty()).then_some(())?;
    let detail = format!("{} {}", plural(volumes.len(), "volume", "volumes"), quoted(&volumes));
    Violation::new("hostPath volumes", detail)
}

/// No port of the host.
pub fn ports(pod: PodView<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let containers = pod.containers_where(|container| {
        let of_host: Vec<String> = items(&container["ports"])
            .map(|port| number(port, "hostPort"))
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        let any = !of_host.is_empty();
        ports.extend(of_host);
        any
    });
    (!containers.is_empty()).then_some(())?;
    let detail = format!(
        "{} {} {} {}",
        named(&containers),
        plural(containers.len(), "uses", "use"),
        plural(ports.len(), "hostPort", "hostPorts"),
        ports.into_iter().collect::<Vec<_>>().join(", ")
    );
    Violation::new("hostPort", detail)
}
