//! Probes and lifecycle handlers reach no other host than their pod.

use super::{PodView, Texts, Violation, plural, quoted};
use crate::kinds::reading::text;

/// From 1.34 on.
pub fn check(pod: PodView<'_>) -> Option<Violation> {
    let mut hosts = Texts::new();
    let containers: Texts = pod
        .containers_where(|container| {
            let lifecycle = &container["lifecycle"];
            let handlers = [
                &container["livenessProbe"],
                &container["readinessProbe"],
                &container["startupProbe"],
                &lifecycle["postStart"],
                &lifecycle["preStop"],
            ];
            let named =
                handlers.iter().flat_map(|handler| ["httpGet", "tcpSocket"].map(|way| text(&handler[way], "host")));
            let named: Vec<&str> = named.filter(|host| !host.is_empty()).collect();
            hosts.extend(&named);
            !named.is_empty()
        })
        .into_iter()
        .collect();
    (!containers.is_empty()).then_some(())?;
    let detail = format!(
        "{} {} {} {} {}",
        plural(containers.len(), "container", "containers"),
        quoted(&containers),
        plural(containers.len(), "uses", "use"),
        plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts"),
        quoted(&hosts)
    );
    Violation::new("probe or lifecycle host", detail)
}
