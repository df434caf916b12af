//! Whether an identity may do what it asks by the fixed rules for nodes and joining: a pure function of who and what.
//! Others may allow more, such as roles and bindings: see [`super::authorizer`], which asks about no administrator.
//!
//! Where the answer hangs on an object that is stored (is this pod bound to that node?), the decision says which fact
//! is needed and somebody else looks it up.

use super::{
    attributes::{Attributes, Resource},
    node,
    shortened::{self, shortened},
};
use crate::{
    identity::{BOOTSTRAPPERS, Identity},
    status::Status,
};

/// Whether a request is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FixedDecision {
    /// Whatever is stored.
    Allow,
    /// Allowed if the stored objects say so.
    AllowIf(Fact),
    /// Not allowed by these rules, so that others decide; the reason may be empty.
    NoOpinion(String),
}

/// Something that only the stored objects can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The pod is bound to the node.
    PodBoundTo {
        /// Of the pod.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The node's name.
        node: String,
    },
    /// The object has to do with a pod that is bound to the node, or with the node itself.
    RelatedTo {
        /// The node's name.
        node: String,
        /// What it is.
        kind: Related,
        /// Of the object; empty for one without.
        namespace: String,
        /// Of the object.
        name: String,
    },
    /// The CertificateSigningRequest was made by this user.
    RequestMadeBy {
        /// The request's name.
        request: String,
        /// The user's name.
        user: String,
    },
}

/// Kinds whose objects a node may have if they have to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Related {
    /// Bound to the node.
    Pod,
    /// In a volume or the environment of a pod, as its pull secret, or of the volume of its claim.
    Secret,
    /// In a volume or the environment of a pod.
    ConfigMap,
    /// As the account that a pod runs as.
    ServiceAccount,
    /// In a volume of a pod.
    Claim,
    /// Bound to the claim of a pod.
    Volume,
    /// Named by a pod or its status.
    ResourceClaim,
    /// Of a volume to the node.
    VolumeAttachment,
    /// Of devices of the node.
    ResourceSlice,
}

impl Fact {
    /// Why something is denied of which this is not true.
    pub fn denial(&self) -> String {
        match self {
            Self::PodBoundTo { node, .. } | Self::RelatedTo { node, .. } => node::unrelated(node),
            Self::RequestMadeBy { .. } => "only one's own request may be read".to_owned(),
        }
    }
}

/// Decides. These rules deny nothing: what none of them names is left to others.
pub fn authorize(identity: &Identity, attributes: &Attributes<'_>) -> FixedDecision {
    if identity.is_nameless_node() {
        return FixedDecision::NoOpinion(format!("unknown node for user {:?}", identity.name));
    }
    let Attributes::Resource(resource) = attributes else { return FixedDecision::NoOpinion(String::new()) };
    if let Some(node) = identity.node() {
        return node::authorize(node, &identity.name, resource);
    }
    if identity.is_in(BOOTSTRAPPERS) {
        return own_signing_request(&identity.name, resource);
    }
    FixedDecision::NoOpinion(String::new())
}

/// The 403 of a denied request, worded as Kubernetes words it.
pub fn forbidden(identity: &Identity, attributes: &Attributes<'_>, reason: &str) -> Status {
    let user = &identity.name;
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let short = |text| shortened(text, shortened::NAME);
    let (message, details) = match attributes {
        Attributes::Path { verb, path } => {
            let path = short(path);
            (format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"{because}"), serde_json::json!({}))
        }
        Attributes::Resource(r) => {
            let (group, plural, name) = (short(r.group), short(r.resource), short(r.name));
            let qualified = if group.is_empty() { plural.to_string() } else { format!("{plural}.{group}") };
            // A path may have an empty part where its resource should be.
            let of_nothing = group.is_empty() && plural.is_empty();
            let what = match (of_nothing, name.is_empty()) {
                (true, _) => String::new(),
                (false, true) => format!("{qualified} is "),
                (false, false) => format!("{qualified} \"{name}\" is "),
            };
            let resource = if r.subresource.is_empty() {
                plural.to_string()
            } else {
                format!("{plural}/{}", short(r.subresource))
            };
            let scope = if r.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace \"{}\"", short(r.namespace))
            };
            let mut details = serde_json::json!({});
            if !plural.is_empty() {
                details["kind"] = plural.as_ref().into();
            }
            if !group.is_empty() {
                details["group"] = group.as_ref().into();
            }
            if !name.is_empty() {
                details["name"] = name.as_ref().into();
            }
            let message = format!(
                "{what}forbidden: User \"{user}\" cannot {} resource \"{resource}\" in API group \"{group}\" {scope}{because}",
                r.verb
            );
            (message, details)
        }
    };
    Status { code: 403, reason: "Forbidden", message, details: Some(details) }
}

/// What a joining node may: make a signing request and see what became of it.
pub(super) fn own_signing_request(user: &str, r: &Resource<'_>) -> FixedDecision {
    if (r.group, r.resource, r.subresource) != ("certificates.k8s.io", "certificatesigningrequests", "") {
        return FixedDecision::NoOpinion(String::new());
    }
    match r.verb {
        "create" => FixedDecision::Allow,
        "get" | "list" | "watch" if !r.name.is_empty() => {
            FixedDecision::AllowIf(Fact::RequestMadeBy { request: r.name.to_owned(), user: user.to_owned() })
        }
        "get" | "list" | "watch" => FixedDecision::NoOpinion("only one's own request may be read, by its name".into()),
        _ => FixedDecision::NoOpinion(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::AUTHENTICATED, request::tests::info};

    fn decide(user: &str, groups: &[&str], method: &str, uri: &str) -> FixedDecision {
        authorize(&identity(user, groups), &Attributes::of(&info(method, uri)))
    }

    fn identity(user: &str, groups: &[&str]) -> Identity {
        Identity { name: user.into(), groups: groups.iter().map(|g| (*g).into()).collect(), ..Identity::default() }
    }

    #[test]
    fn no_fixed_rule_is_for_everyone() {
        for (method, uri) in
            [("GET", "/api"), ("GET", "/api/v1/pods"), ("POST", "/api/v1/namespaces"), ("GET", "/metrics")]
        {
            assert_eq!(
                decide("joe", &[AUTHENTICATED], method, uri),
                FixedDecision::NoOpinion(String::new()),
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn a_bootstrapper_may_only_make_and_read_its_own_request() {
        let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        let decide = |method: &str, uri: &str| decide("system:bootstrap:abcdef", &[BOOTSTRAPPERS], method, uri);
        assert_eq!(decide("POST", requests), FixedDecision::Allow);
        let own =
            FixedDecision::AllowIf(Fact::RequestMadeBy { request: "r".into(), user: "system:bootstrap:abcdef".into() });
        assert_eq!(decide("GET", &format!("{requests}/r")), own);
        assert_eq!(decide("GET", &format!("{requests}?watch=true&fieldSelector=metadata.name%3Dr")), own);
        for (method, uri) in [
            ("GET", requests.to_owned()),
            ("PUT", format!("{requests}/r/approval")),
            ("PATCH", format!("{requests}/r/status")),
            ("DELETE", format!("{requests}/r")),
            ("GET", "/api/v1/secrets".into()),
            ("GET", "/api/v1/nodes".into()),
        ] {
            assert!(matches!(decide(method, &uri), FixedDecision::NoOpinion(_)), "{method} {uri}");
        }
    }

    #[test]
    fn a_refusal_reads_as_it_does_in_kubernetes() {
        let message =
            |method, uri| forbidden(&identity("system:node:y", &[]), &Attributes::of(&info(method, uri)), "").message;
        assert_eq!(
            message("PUT", "/api/v1/nodes/x"),
            r#"nodes "x" is forbidden: User "system:node:y" cannot update resource "nodes" in API group "" at the cluster scope"#
        );
        assert_eq!(
            message("GET", "/api/v1/namespaces/kube-system/secrets"),
            r#"secrets is forbidden: User "system:node:y" cannot list resource "secrets" in API group "" in the namespace "kube-system""#
        );
        assert_eq!(
            message("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale"),
            r#"deployments.apps "d" is forbidden: User "system:node:y" cannot patch resource "deployments/scale" in API group "apps" in the namespace "a""#
        );
        assert_eq!(message("GET", "/metrics"), r#"forbidden: User "system:node:y" cannot get path "/metrics""#);
        assert_eq!(
            message("GET", "/api/v1//namespaces/a"),
            r#"forbidden: User "system:node:y" cannot get resource "/a" in API group "" at the cluster scope"#
        );
        assert_eq!(
            message("GET", "/api/v1/namespaces/a/pods//x?fieldSelector=metadata.name%3Dz"),
            r#"pods "z" is forbidden: User "system:node:y" cannot list resource "pods/x" in API group "" in the namespace "a""#
        );
    }
}
