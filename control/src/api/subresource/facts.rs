//! What Kubernetes 1.35 says in discovery of the subresources of its kinds, beside what is served here.

use super::Subresource;
use crate::kinds::{Kind, Kinds, Storage};

const CHANGE: &str = "get patch update";

/// Subresources of each plural, with their verbs. Those that an agent of a node or another service answers come last.
const SUBRESOURCES: &[(&str, &[(&str, &str)])] = &[
    ("apiservices", &[("status", CHANGE)]),
    ("certificatesigningrequests", &[("approval", CHANGE), ("status", CHANGE)]),
    ("cronjobs", &[("status", CHANGE)]),
    ("customresourcedefinitions", &[("status", CHANGE)]),
    ("daemonsets", &[("status", CHANGE)]),
    ("deployments", &[("scale", CHANGE), ("status", CHANGE)]),
    ("flowschemas", &[("status", CHANGE)]),
    ("horizontalpodautoscalers", &[("status", CHANGE)]),
    ("ingresses", &[("status", CHANGE)]),
    ("jobs", &[("status", CHANGE)]),
    ("namespaces", &[("finalize", "update"), ("status", CHANGE)]),
    ("nodes", &[("status", CHANGE), ("proxy", "create delete get patch update")]),
    ("persistentvolumeclaims", &[("status", CHANGE)]),
    ("persistentvolumes", &[("status", CHANGE)]),
    ("poddisruptionbudgets", &[("status", CHANGE)]),
    (
        "pods",
        &[
            ("binding", "create"),
            ("ephemeralcontainers", CHANGE),
            ("eviction", "create"),
            ("resize", CHANGE),
            ("status", CHANGE),
            ("attach", "create get"),
            ("exec", "create get"),
            ("log", "get"),
            ("portforward", "create get"),
            ("proxy", "create delete get patch update"),
        ],
    ),
    ("prioritylevelconfigurations", &[("status", CHANGE)]),
    ("replicasets", &[("scale", CHANGE), ("status", CHANGE)]),
    ("replicationcontrollers", &[("scale", CHANGE), ("status", CHANGE)]),
    ("resourceclaims", &[("status", CHANGE)]),
    ("resourcequotas", &[("status", CHANGE)]),
    ("serviceaccounts", &[("token", "create")]),
    ("servicecidrs", &[("status", CHANGE)]),
    ("services", &[("status", CHANGE), ("proxy", "create delete get patch update")]),
    ("statefulsets", &[("scale", CHANGE), ("status", CHANGE)]),
    ("validatingadmissionpolicies", &[("status", CHANGE)]),
    ("volumeattachments", &[("status", CHANGE)]),
];

/// Superseded versions, which Kubernetes 1.35 serves no more.
fn is_superseded(kind: &Kind) -> bool {
    matches!(&kind.storage, Storage::As(stored) if stored.deprecation.is_some())
}

#[test]
fn every_subresource_is_in_discovery_as_in_kubernetes() {
    for kind in Kinds::built_in().iter().filter(|kind| !is_superseded(kind)) {
        let known = SUBRESOURCES.iter().find(|(plural, _)| *plural == kind.plural).map(|(_, segments)| *segments);
        let known = known.unwrap_or_default();
        for segment in &kind.subresources {
            let Some((_, verbs)) = known.iter().find(|(name, _)| name == segment) else {
                panic!("Kubernetes has no {kind:?}/{segment}");
            };
            let served = Subresource::of(kind, segment).unwrap_or_else(|| panic!("{kind:?}/{segment} is not served"));
            assert_eq!(served.verbs.join(" "), *verbs, "{kind:?}/{segment}");
        }
        for (segment, _) in known {
            assert!(kind.has(segment), "{kind:?} lacks {segment}");
        }
    }
}
