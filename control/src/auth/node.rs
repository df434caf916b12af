//! The node authoriser: which requests the agent of one node may make.
//!
//! A node that falls into wrong hands gives away what runs on it and nothing else. Pure: see [`super::authorize`]. What
//! such a request may write is decided by NodeRestriction, in `admission`. The rules are those of Kubernetes' Node
//! authoriser.

use super::{
    attributes::Resource,
    authorize::{Fact, FixedDecision, Referenced, own_signing_request},
};

/// Decides for the agent of `node`, whose user is `user`.
pub(super) fn authorize(node: &str, user: &str, r: &Resource<'_>) -> FixedDecision {
    let reads = matches!(r.verb, "get" | "list" | "watch");
    match (r.group, r.resource, r.subresource) {
        ("", "services" | "namespaces" | "nodes", "") | ("discovery.k8s.io", "endpointslices", "") if reads => {
            FixedDecision::Allow
        }
        ("", "nodes", "") => match r.verb {
            // The name is in the body, which NodeRestriction checks.
            "create" => FixedDecision::Allow,
            "update" | "patch" => own_name(node, r),
            _ => FixedDecision::Deny("a node may not delete nodes".into()),
        },
        ("", "nodes", "status") => match r.verb {
            "get" | "update" | "patch" => own_name(node, r),
            _ => FixedDecision::Deny(String::new()),
        },
        ("coordination.k8s.io", "leases", "") if r.namespace == "kube-node-lease" => match r.verb {
            "create" => FixedDecision::Allow,
            "get" | "update" | "patch" | "delete" => own_name(node, r),
            "list" | "watch" if !r.name.is_empty() => own_name(node, r),
            _ => FixedDecision::Deny("a node may only access its own lease".into()),
        },
        ("", "pods", "") => match r.verb {
            "list" | "watch" if r.is_narrowed_to("spec.nodeName", node) => FixedDecision::Allow,
            // Not by the name of a pod: a watch of it would go on when another pod of that name runs elsewhere.
            "list" | "watch" => FixedDecision::Deny(format!(
                "a node may only read its own pods: use the field selector spec.nodeName={node}"
            )),
            "get" | "delete" => bound(node, r),
            // Mirror pods of its own, which NodeRestriction checks.
            "create" => FixedDecision::Allow,
            _ => FixedDecision::Deny("a node may not change the spec of pods".into()),
        },
        ("", "pods", "status") => match r.verb {
            "get" | "update" | "patch" => bound(node, r),
            _ => FixedDecision::Deny(String::new()),
        },
        ("", "pods", "eviction") if r.verb == "create" => bound(node, r),
        ("", "secrets", "") => referenced(node, Referenced::Secret, r),
        ("", "configmaps", "") => referenced(node, Referenced::ConfigMap, r),
        ("", "serviceaccounts", subresource) => match (r.verb, subresource) {
            ("create", "token") if !r.name.is_empty() => FixedDecision::AllowIf(Fact::ReferencedByPodOf {
                node: node.to_owned(),
                kind: Referenced::ServiceAccount,
                namespace: r.namespace.to_owned(),
                name: r.name.to_owned(),
            }),
            (_, "token") => FixedDecision::Deny("can only create tokens for individual service accounts".into()),
            _ => FixedDecision::Deny("only create token subresource of serviceaccount allowed".into()),
        },
        ("" | "events.k8s.io", "events", "") => match r.verb {
            "create" | "update" | "patch" => FixedDecision::Allow,
            _ => FixedDecision::Deny(String::new()),
        },
        ("certificates.k8s.io", "certificatesigningrequests", "") => own_signing_request(user, r),
        _ => FixedDecision::Deny(String::new()),
    }
}

fn own_name(node: &str, r: &Resource<'_>) -> FixedDecision {
    if r.name == node {
        FixedDecision::Allow
    } else {
        FixedDecision::Deny(format!("node \"{node}\" may only modify its own {}", r.resource))
    }
}

fn bound(node: &str, r: &Resource<'_>) -> FixedDecision {
    FixedDecision::AllowIf(Fact::PodBoundTo {
        namespace: r.namespace.to_owned(),
        pod: r.name.to_owned(),
        node: node.to_owned(),
    })
}

fn referenced(node: &str, kind: Referenced, r: &Resource<'_>) -> FixedDecision {
    match r.verb {
        "get" | "list" | "watch" if !r.name.is_empty() && !r.namespace.is_empty() => {
            FixedDecision::AllowIf(Fact::ReferencedByPodOf {
                node: node.to_owned(),
                kind,
                namespace: r.namespace.to_owned(),
                name: r.name.to_owned(),
            })
        }
        "get" | "list" | "watch" => {
            FixedDecision::Deny(format!("a node may only read {} that its pods name, one at a time", r.resource))
        }
        _ => FixedDecision::Deny(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::attributes::Attributes, *};
    use crate::request::tests::info;

    fn decide(method: &str, uri: &str) -> FixedDecision {
        match Attributes::of(&info(method, uri)) {
            Attributes::Resource(r) => authorize("n1", "system:node:n1", &r),
            path => panic!("{path:?}"),
        }
    }

    #[test]
    fn what_a_node_may_and_may_not() {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let may = [
            ("GET", "/api/v1/services?watch=true".to_owned()),
            ("GET", "/apis/discovery.k8s.io/v1/endpointslices".into()),
            ("GET", "/api/v1/nodes".into()),
            ("GET", "/api/v1/nodes/n2".into()),
            ("GET", "/api/v1/namespaces".into()),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=1".into()),
            ("POST", "/api/v1/nodes".into()),
            ("POST", "/api/v1/namespaces/a/pods".into()),
            ("PATCH", "/api/v1/nodes/n1".into()),
            ("PUT", "/api/v1/nodes/n1/status".into()),
            ("POST", leases.into()),
            ("PUT", format!("{leases}/n1")),
            ("GET", format!("{leases}/n1")),
            ("POST", "/api/v1/namespaces/a/events".into()),
            ("PATCH", "/apis/events.k8s.io/v1/namespaces/a/events/e".into()),
            ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests".into()),
        ];
        for (method, uri) in may {
            assert_eq!(decide(method, &uri), FixedDecision::Allow, "{method} {uri}");
        }
        let may_not = [
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=status.phase%3DRunning"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp"),
            ("GET", "/api/v1/namespaces/a/pods?watch=true&fieldSelector=metadata.name%3Dp"),
            ("GET", "/api/v1/watch/namespaces/a/pods/p"),
            ("PUT", "/api/v1/namespaces/a/pods/p"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName!%3Dx%5C%2Cspec.nodeName%5C%3Dn1"),
            ("POST", "/api/v1/namespaces/a/pods/p/binding"),
            ("PUT", "/api/v1/nodes/n2"),
            ("PATCH", "/api/v1/nodes/n2/status"),
            ("DELETE", "/api/v1/nodes/n1"),
            ("GET", "/api/v1/nodes/n1/proxy/pods"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/n1"),
            ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"),
            ("GET", "/api/v1/secrets"),
            ("GET", "/api/v1/namespaces/a/secrets"),
            ("GET", "/api/v1/namespaces/a/configmaps?watch=true"),
            ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Dx%5C%2Cmetadata.name%5C%3Ds"),
            ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Dx"),
            ("PUT", "/api/v1/namespaces/a/secrets/s"),
            ("DELETE", "/api/v1/namespaces/a/configmaps/c"),
            ("POST", "/api/v1/namespaces/a/services"),
            ("PUT", "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/e"),
            ("GET", "/apis/apps/v1/deployments"),
            ("GET", "/api/v1/events"),
            ("PUT", "/apis/certificates.k8s.io/v1/certificatesigningrequests/r/approval"),
            ("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests"),
        ];
        for (method, uri) in may_not {
            assert!(matches!(decide(method, uri), FixedDecision::Deny(_)), "{method} {uri}: {:?}", decide(method, uri));
        }
    }

    #[test]
    fn what_hangs_on_the_pods_of_a_node() {
        let bound =
            FixedDecision::AllowIf(Fact::PodBoundTo { namespace: "a".into(), pod: "p".into(), node: "n1".into() });
        for (method, uri) in [
            ("GET", "/api/v1/namespaces/a/pods/p"),
            ("DELETE", "/api/v1/namespaces/a/pods/p"),
            ("PATCH", "/api/v1/namespaces/a/pods/p/status"),
            ("PUT", "/api/v1/namespaces/a/pods/p/status"),
        ] {
            assert_eq!(decide(method, uri), bound, "{method} {uri}");
        }
        let named = |kind, name: &str| {
            FixedDecision::AllowIf(Fact::ReferencedByPodOf {
                node: "n1".into(),
                kind,
                namespace: "a".into(),
                name: name.into(),
            })
        };
        assert_eq!(decide("GET", "/api/v1/namespaces/a/secrets/s"), named(Referenced::Secret, "s"));
        assert_eq!(
            decide("GET", "/api/v1/namespaces/a/configmaps?watch=true&fieldSelector=metadata.name%3Dc"),
            named(Referenced::ConfigMap, "c")
        );
        // What it may be for is looked at when it is made.
        let token = "/api/v1/namespaces/a/serviceaccounts/robot/token";
        assert_eq!(decide("POST", token), named(Referenced::ServiceAccount, "robot"));
        for (method, uri) in [("GET", "/api/v1/namespaces/a/serviceaccounts/robot"), ("GET", token)] {
            assert!(matches!(decide(method, uri), FixedDecision::Deny(_)), "{method} {uri}");
        }
    }
}
