//! The node authoriser: which requests the agent of one node may make.
//!
//! A node that falls into wrong hands gives away what runs on it and nothing else. Pure: see [`super::authorize`]. What
//! such a request may write is decided by NodeRestriction, in `admission`. The rules and words are those of Kubernetes'
//! Node authoriser (`plugin/pkg/auth/authorizer/node`), with these departures:
//! - An agent reads all Nodes, Namespaces and EndpointSlices: it makes routes, balances Services and answers DNS.
//! - It reads its own signing requests alone, and watches no pod by its name: such a watch would go on when another pod
//!   of that name runs elsewhere.
//! - The read of a pod that is gone is answered by 404, which tells its agent that it is.

use super::{
    attributes::Resource,
    authorize::{Fact, FixedDecision, Related, own_signing_request},
};

/// Decides for the agent of `node`, whose user is `user`.
pub(super) fn authorize(node: &str, user: &str, r: &Resource<'_>) -> FixedDecision {
    let reads = matches!(r.verb, "get" | "list" | "watch");
    match (r.group, r.resource) {
        ("", "secrets") => read_related(node, Related::Secret, r),
        ("", "configmaps") => read_related(node, Related::ConfigMap, r),
        ("", "persistentvolumeclaims") if r.subresource == "status" => match r.verb {
            "update" | "patch" => related(node, Related::Claim, r),
            _ => no_opinion("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims") => get_related(node, Related::Claim, r),
        ("", "persistentvolumes") => get_related(node, Related::Volume, r),
        ("resource.k8s.io", "resourceclaims") => get_related(node, Related::ResourceClaim, r),
        ("storage.k8s.io", "volumeattachments") => get_related(node, Related::VolumeAttachment, r),
        ("", "serviceaccounts") => service_account(node, r),
        ("coordination.k8s.io", "leases") => lease(node, r),
        ("storage.k8s.io", "csinodes") => csi_node(node, r),
        ("resource.k8s.io", "resourceslices") => resource_slice(node, r),
        ("", "nodes") => node_object(r),
        ("", "pods") => pod(node, r),
        ("certificates.k8s.io", "certificatesigningrequests") => own_signing_request(user, r),
        _ => {
            let is_allowed = r.subresource.is_empty()
                && match (r.group, r.resource) {
                    ("", "services" | "namespaces")
                    | ("discovery.k8s.io", "endpointslices")
                    | ("storage.k8s.io", "csidrivers")
                    | ("node.k8s.io", "runtimeclasses") => reads,
                    ("", "endpoints") => r.verb == "get",
                    ("" | "events.k8s.io", "events") => matches!(r.verb, "create" | "update" | "patch"),
                    ("authentication.k8s.io", "tokenreviews")
                    | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => {
                        r.verb == "create"
                    }
                    _ => false,
                };
            if is_allowed { FixedDecision::Allow } else { no_opinion("") }
        }
    }
}

fn no_opinion(why: &str) -> FixedDecision {
    FixedDecision::NoOpinion(why.to_owned())
}

/// Allowed if the object that is named has to do with a pod of the node, or with the node itself.
fn related(node: &str, kind: Related, r: &Resource<'_>) -> FixedDecision {
    if r.name.is_empty() {
        return no_opinion("No Object name found");
    }
    let (node, namespace, name) = (node.to_owned(), r.namespace.to_owned(), r.name.to_owned());
    FixedDecision::AllowIf(Fact::RelatedTo { node, kind, namespace, name })
}

fn get_related(node: &str, kind: Related, r: &Resource<'_>) -> FixedDecision {
    match (r.verb, r.subresource) {
        ("get", "") => related(node, kind, r),
        ("get", _) => no_opinion("cannot get subresource"),
        _ => no_opinion("can only get individual resources of this type"),
    }
}

fn read_related(node: &str, kind: Related, r: &Resource<'_>) -> FixedDecision {
    match (r.verb, r.subresource) {
        ("get" | "list" | "watch", "") if r.namespace.is_empty() => {
            no_opinion("can only read namespaced object of this type")
        }
        ("get" | "list" | "watch", "") => related(node, kind, r),
        ("get" | "list" | "watch", _) => no_opinion("cannot read subresource"),
        _ => no_opinion("can only read resources of this type"),
    }
}

/// The account of a pod, and tokens for it. What a token may be for is looked at when it is made.
fn service_account(node: &str, r: &Resource<'_>) -> FixedDecision {
    match (r.verb, r.subresource) {
        ("get", "") => read_related(node, Related::ServiceAccount, r),
        ("create", _) if r.name.is_empty() => no_opinion("can only create tokens for individual service accounts"),
        ("create", "token") => related(node, Related::ServiceAccount, r),
        ("create", _) => no_opinion("can only create token subresource of serviceaccount"),
        _ => no_opinion("can only create tokens for individual service accounts"),
    }
}

/// What is created has its name in its body, which NodeRestriction looks at.
fn lease(node: &str, r: &Resource<'_>) -> FixedDecision {
    match r.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no_opinion("can only get, create, update, patch, or delete a node lease"),
    }
    if r.namespace != "kube-node-lease" {
        return no_opinion("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if r.verb != "create" && r.name != node {
        return no_opinion("can only access node lease with the same name as the requesting node");
    }
    FixedDecision::Allow
}

fn csi_node(node: &str, r: &Resource<'_>) -> FixedDecision {
    match r.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no_opinion("can only get, create, update, patch, or delete a CSINode"),
    }
    if !r.subresource.is_empty() {
        return no_opinion("cannot authorize CSINode subresources");
    }
    if r.verb != "create" && r.name != node {
        return no_opinion("can only access CSINode with the same name as the requesting node");
    }
    FixedDecision::Allow
}

fn resource_slice(node: &str, r: &Resource<'_>) -> FixedDecision {
    if !r.subresource.is_empty() {
        return no_opinion("cannot authorize ResourceSlice subresources");
    }
    match r.verb {
        "create" => FixedDecision::Allow,
        "get" | "update" | "patch" | "delete" => related(node, Related::ResourceSlice, r),
        "watch" | "list" | "deletecollection" if r.is_narrowed_to("spec.nodeName", node) => FixedDecision::Allow,
        "watch" | "list" | "deletecollection" => {
            no_opinion("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => no_opinion(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
             delete, deletecollection",
        ),
    }
}

/// Whose Node is written is NodeRestriction's to see.
fn node_object(r: &Resource<'_>) -> FixedDecision {
    match (r.subresource, r.verb) {
        ("", "create" | "update" | "patch" | "get" | "list" | "watch") | ("status", "update" | "patch") => {
            FixedDecision::Allow
        }
        _ => no_opinion(""),
    }
}

/// Whose pod is written is NodeRestriction's to see.
fn pod(node: &str, r: &Resource<'_>) -> FixedDecision {
    match (r.subresource, r.verb) {
        ("", "get") if r.name.is_empty() => no_opinion("No Object name found"),
        ("", "get") => FixedDecision::AllowIf(Fact::PodBoundTo {
            namespace: r.namespace.to_owned(),
            pod: r.name.to_owned(),
            node: node.to_owned(),
        }),
        ("", "list" | "watch") if r.is_narrowed_to("spec.nodeName", node) => FixedDecision::Allow,
        ("", "list") if !r.name.is_empty() => related(node, Related::Pod, r),
        ("", "watch") if !r.name.is_empty() => FixedDecision::NoOpinion(unrelated(node)),
        ("", "list" | "watch") => no_opinion("can only list/watch pods with spec.nodeName field selector"),
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => FixedDecision::Allow,
        _ => no_opinion(""),
    }
}

/// Why a node may not have an object that has nothing to do with it.
pub(super) fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
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
        let slices = "/apis/resource.k8s.io/v1/resourceslices";
        let may = [
            ("GET", "/api/v1/services?watch=true".to_owned()),
            ("GET", "/apis/discovery.k8s.io/v1/endpointslices".into()),
            ("GET", "/api/v1/nodes".into()),
            ("GET", "/api/v1/nodes/n2".into()),
            ("GET", "/api/v1/namespaces".into()),
            ("GET", "/api/v1/namespaces/a/endpoints/e".into()),
            ("GET", "/apis/storage.k8s.io/v1/csidrivers".into()),
            ("GET", "/apis/node.k8s.io/v1/runtimeclasses?watch=1".into()),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=1".into()),
            ("POST", "/api/v1/nodes".into()),
            ("POST", "/api/v1/namespaces/a/pods".into()),
            ("DELETE", "/api/v1/namespaces/a/pods/p".into()),
            ("PATCH", "/api/v1/namespaces/a/pods/p/status".into()),
            ("POST", "/api/v1/namespaces/a/pods/p/eviction".into()),
            ("PATCH", "/api/v1/nodes/n1".into()),
            ("PUT", "/api/v1/nodes/n1/status".into()),
            ("POST", leases.into()),
            ("PUT", format!("{leases}/n1")),
            ("GET", format!("{leases}/n1")),
            ("POST", "/apis/storage.k8s.io/v1/csinodes".into()),
            ("PATCH", "/apis/storage.k8s.io/v1/csinodes/n1".into()),
            ("POST", slices.into()),
            ("DELETE", format!("{slices}?fieldSelector=spec.nodeName%3Dn1")),
            ("POST", "/api/v1/namespaces/a/events".into()),
            ("PATCH", "/apis/events.k8s.io/v1/namespaces/a/events/e".into()),
            ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests".into()),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews".into()),
            ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews".into()),
        ];
        for (method, uri) in may {
            assert_eq!(decide(method, &uri), FixedDecision::Allow, "{method} {uri}");
        }
        let may_not = [
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=status.phase%3DRunning"),
            ("GET", "/api/v1/namespaces/a/pods?watch=true&fieldSelector=metadata.name%3Dp"),
            ("GET", "/api/v1/watch/namespaces/a/pods/p"),
            ("PUT", "/api/v1/namespaces/a/pods/p"),
            ("GET", "/api/v1/namespaces/a/pods/p/status"),
            ("GET", "/api/v1/namespaces/a/pods/p/log"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName!%3Dx%5C%2Cspec.nodeName%5C%3Dn1"),
            ("POST", "/api/v1/namespaces/a/pods/p/binding"),
            ("POST", "/api/v1/namespaces/a/pods/p/exec"),
            ("DELETE", "/api/v1/nodes/n1"),
            ("GET", "/api/v1/nodes/n1/status"),
            ("GET", "/api/v1/nodes/n1/proxy/pods"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/n1"),
            ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"),
            ("PATCH", "/apis/storage.k8s.io/v1/csinodes/n2"),
            ("GET", "/apis/storage.k8s.io/v1/csinodes"),
            ("GET", "/apis/resource.k8s.io/v1/resourceslices"),
            ("DELETE", "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn2"),
            ("GET", "/api/v1/secrets"),
            ("GET", "/api/v1/namespaces/a/secrets"),
            ("GET", "/api/v1/namespaces/a/configmaps?watch=true"),
            ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Dx%5C%2Cmetadata.name%5C%3Ds"),
            ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Dx"),
            ("PUT", "/api/v1/namespaces/a/secrets/s"),
            ("DELETE", "/api/v1/namespaces/a/configmaps/c"),
            ("PATCH", "/api/v1/namespaces/a/persistentvolumeclaims/c"),
            ("GET", "/api/v1/persistentvolumes"),
            ("GET", "/apis/storage.k8s.io/v1/volumeattachments"),
            ("GET", "/api/v1/namespaces/a/serviceaccounts"),
            ("POST", "/api/v1/namespaces/a/serviceaccounts"),
            ("POST", "/api/v1/namespaces/a/services"),
            ("PUT", "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/e"),
            ("GET", "/apis/apps/v1/deployments"),
            ("GET", "/api/v1/events"),
            ("PUT", "/apis/certificates.k8s.io/v1/certificatesigningrequests/r/approval"),
            ("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests"),
        ];
        for (method, uri) in may_not {
            assert!(
                matches!(decide(method, uri), FixedDecision::NoOpinion(_)),
                "{method} {uri}: {:?}",
                decide(method, uri)
            );
        }
    }

    #[test]
    fn what_hangs_on_the_pods_of_a_node() {
        let bound =
            FixedDecision::AllowIf(Fact::PodBoundTo { namespace: "a".into(), pod: "p".into(), node: "n1".into() });
        assert_eq!(decide("GET", "/api/v1/namespaces/a/pods/p"), bound);
        let to = |kind, namespace: &str, name: &str| {
            let (namespace, name) = (namespace.into(), name.into());
            FixedDecision::AllowIf(Fact::RelatedTo { node: "n1".into(), kind, namespace, name })
        };
        let account = "/api/v1/namespaces/a/serviceaccounts/robot";
        let one = |plural: &str| format!("/api/v1/namespaces/a/{plural}?watch=true&fieldSelector=metadata.name%3Dx");
        for (method, uri, expected) in [
            ("GET", "/api/v1/namespaces/a/secrets/x".to_owned(), to(Related::Secret, "a", "x")),
            ("GET", one("configmaps"), to(Related::ConfigMap, "a", "x")),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx".into(), to(Related::Pod, "a", "x")),
            ("GET", "/api/v1/namespaces/a/persistentvolumeclaims/x".into(), to(Related::Claim, "a", "x")),
            ("PATCH", "/api/v1/namespaces/a/persistentvolumeclaims/x/status".into(), to(Related::Claim, "a", "x")),
            ("GET", "/api/v1/persistentvolumes/x".into(), to(Related::Volume, "", "x")),
            ("GET", "/apis/storage.k8s.io/v1/volumeattachments/x".into(), to(Related::VolumeAttachment, "", "x")),
            ("DELETE", "/apis/resource.k8s.io/v1/resourceslices/x".into(), to(Related::ResourceSlice, "", "x")),
            ("GET", account.into(), to(Related::ServiceAccount, "a", "robot")),
            ("POST", format!("{account}/token"), to(Related::ServiceAccount, "a", "robot")),
        ] {
            assert_eq!(decide(method, &uri), expected, "{method} {uri}");
        }
        assert!(matches!(decide("GET", &format!("{account}/token")), FixedDecision::NoOpinion(_)));
    }

    #[test]
    fn a_denial_has_the_words_of_kubernetes() {
        let why = |method, uri| match decide(method, uri) {
            FixedDecision::NoOpinion(why) => why,
            other => panic!("{method} {uri}: {other:?}"),
        };
        for (method, uri, expected) in [
            ("GET", "/api/v1/secrets", "can only read namespaced object of this type"),
            ("GET", "/api/v1/namespaces/a/secrets", "No Object name found"),
            ("GET", "/api/v1/persistentvolumes", "can only get individual resources of this type"),
            ("GET", "/api/v1/pods", "can only list/watch pods with spec.nodeName field selector"),
            ("POST", "/api/v1/namespaces/a/serviceaccounts", "can only create tokens for individual service accounts"),
            (
                "GET",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/n1",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            (
                "GET",
                "/apis/storage.k8s.io/v1/csinodes/n2",
                "can only access CSINode with the same name as the requesting node",
            ),
        ] {
            assert_eq!(why(method, uri), expected, "{method} {uri}");
        }
    }
}
