//! To which flow a request belongs: the rules of a FlowSchema, and what tells its flows apart. Pure, and allocates
//! nothing.
//!
//! Source: `rule.go` and `computeFlowDistinguisher` of `k8s.io/apiserver/pkg/util/flowcontrol`.

use serde_json::Value;

use crate::{
    identity::{Identity, SERVICE_ACCOUNT},
    request::{
        RequestInfo,
        path::{RequestPath, ResourcePath},
    },
};

/// One of `spec.rules` of a FlowSchema.
#[derive(Clone, Debug)]
pub struct FlowRule {
    subjects: Vec<FlowSubject>,
    resources: Vec<ResourceFlowRule>,
    paths: Vec<PathFlowRule>,
}

/// What makes requests of a FlowSchema one flow; all of them where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    /// `ByUser`
    User,
    /// `ByNamespace`
    Namespace,
}

#[derive(Clone, Debug)]
enum FlowSubject {
    AnyUser,
    User(String),
    AnyGroup,
    Group(String),
    /// All of a namespace where there is no name.
    ServiceAccount {
        namespace: String,
        name: Option<String>,
    },
}

#[derive(Clone, Debug)]
struct ResourceFlowRule {
    verbs: AnyOf,
    groups: AnyOf,
    resources: AnyOf,
    /// Empty in a rule that is about no namespace; it then matches none.
    namespaces: AnyOf,
    cluster_scope: bool,
}

#[derive(Clone, Debug)]
struct PathFlowRule {
    verbs: AnyOf,
    paths: AnyOf,
}

/// A list of names in which `*`, alone, stands for every one.
#[derive(Clone, Debug)]
enum AnyOf {
    All,
    These(Vec<String>),
}

/// The namespace that a request is about; empty where it is about none. A Namespace is in itself.
pub fn namespace_of(info: &RequestInfo) -> &str {
    let Some(path) = info.resource_asked() else { return "" };
    let is_namespace = path.group.is_empty() && path.resource == "namespaces";
    let namespace = if is_namespace { path.name.as_deref() } else { path.namespace.as_deref() };
    namespace.unwrap_or_default()
}

impl Distinguisher {
    /// `spec.distinguisherMethod`
    pub fn of(spec: &Value) -> Option<Self> {
        match spec["distinguisherMethod"]["type"].as_str()? {
            "ByUser" => Some(Self::User),
            "ByNamespace" => Some(Self::Namespace),
            _ => None,
        }
    }

    /// What the flows of two requests differ by.
    pub fn value<'a>(self, user: &'a str, info: &'a RequestInfo) -> &'a str {
        match self {
            Self::User => user,
            Self::Namespace => namespace_of(info),
        }
    }
}

impl FlowRule {
    /// The rules of a FlowSchema's `spec`, which is valid.
    pub fn all_of(spec: &Value) -> Vec<Self> {
        let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
        let rule = |rule: &Value| Self {
            subjects: list(&rule["subjects"]).iter().filter_map(FlowSubject::of).collect(),
            resources: list(&rule["resourceRules"]).iter().map(ResourceFlowRule::of).collect(),
            paths: list(&rule["nonResourceRules"]).iter().map(PathFlowRule::of).collect(),
        };
        list(&spec["rules"]).iter().map(rule).collect()
    }

    /// Whether a request is one of those that the rule is about.
    pub fn matches(&self, identity: &Identity, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.matches(identity))
            && match &info.path {
                RequestPath::Resource(path) | RequestPath::Unserved(path) => {
                    self.resources.iter().any(|rule| rule.matches(path, info))
                }
                RequestPath::Other(path) => {
                    self.paths.iter().any(|rule| rule.matches(path.as_str(), info.method.as_str()))
                }
            }
    }
}

impl FlowSubject {
    fn of(subject: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(match subject["kind"].as_str()? {
            "User" => match text(&subject["user"]["name"])? {
                all if all == "*" => Self::AnyUser,
                name => Self::User(name),
            },
            "Group" => match text(&subject["group"]["name"])? {
                all if all == "*" => Self::AnyGroup,
                name => Self::Group(name),
            },
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                let name = text(&account["name"])?;
                Self::ServiceAccount { namespace: text(&account["namespace"])?, name: Some(name).filter(|n| n != "*") }
            }
            _ => return None,
        })
    }

    fn matches(&self, identity: &Identity) -> bool {
        match self {
            Self::AnyUser | Self::AnyGroup => true,
            Self::User(name) => identity.name == *name,
            Self::Group(name) => identity.is_in(name),
            Self::ServiceAccount { namespace, name } => {
                let account = identity.name.strip_prefix(SERVICE_ACCOUNT);
                let account = account.and_then(|account| account.strip_prefix(namespace.as_str())?.strip_prefix(':'));
                account.is_some_and(|account| name.as_ref().is_none_or(|name| account == name))
            }
        }
    }
}

impl ResourceFlowRule {
    fn of(rule: &Value) -> Self {
        Self {
            verbs: AnyOf::of(&rule["verbs"]),
            groups: AnyOf::of(&rule["apiGroups"]),
            resources: AnyOf::of(&rule["resources"]),
            namespaces: AnyOf::of(&rule["namespaces"]),
            cluster_scope: rule["clusterScope"] == true,
        }
    }

    fn matches(&self, path: &ResourcePath, info: &RequestInfo) -> bool {
        let verb = info.verb.as_str();
        self.verbs.has(|name| name == verb)
            && self.resources.has(|name| is_resource(name, path))
            && self.groups.has(|name| name == path.group)
            && match namespace_of(info) {
                "" => self.cluster_scope,
                namespace => self.namespaces.has(|name| name == namespace),
            }
    }
}

/// Whether `pods` or `pods/status` names what a path is about.
fn is_resource(name: &str, path: &ResourcePath) -> bool {
    match (name.split_once('/'), path.subresource.as_deref()) {
        (Some((resource, of)), Some(subresource)) => resource == path.resource && of == subresource,
        (None, None) => name == path.resource,
        _ => false,
    }
}

impl PathFlowRule {
    fn of(rule: &Value) -> Self {
        Self { verbs: AnyOf::of(&rule["verbs"]), paths: AnyOf::of(&rule["nonResourceURLs"]) }
    }

    /// The verb on a path is its method, in lower case.
    fn matches(&self, path: &str, method: &str) -> bool {
        let is_at_or_below = |name: &str| {
            let prefix = name.strip_suffix('*').unwrap_or(name);
            let below = path.strip_prefix(prefix);
            name == path || below.is_some_and(|below| prefix.ends_with('/') || below.starts_with('/'))
        };
        self.verbs.has(|name| name.eq_ignore_ascii_case(method)) && self.paths.has(is_at_or_below)
    }
}

impl AnyOf {
    fn of(list: &Value) -> Self {
        let names: Vec<String> =
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if names == ["*"] { Self::All } else { Self::These(names) }
    }

    fn has(&self, is_it: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|name| is_it(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::tests::info;

    fn matches(rule: &Value, user: &Identity, method: &str, uri: &str) -> bool {
        FlowRule::all_of(&json!({"rules": [rule]}))[0].matches(user, &info(method, uri))
    }

    #[test]
    fn subjects_are_users_groups_and_service_accounts() {
        let of = |subject: Value, user: &Identity| {
            let rule = json!({"subjects": [subject], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
            matches(&rule, user, "GET", "/version")
        };
        let joe = Identity::authenticated("joe".into(), vec!["devs".into()]);
        let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
        let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
        assert!(of(user("joe"), &joe) && of(user("*"), &joe) && !of(user("ann"), &joe));
        assert!(of(group("devs"), &joe) && of(group("system:authenticated"), &joe) && !of(group("ops"), &joe));
        let account =
            |name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": name}});
        let [mine, other] = [Identity::service_account("a", "b"), Identity::service_account("ab", "b")];
        assert!(of(account("b"), &mine) && of(account("*"), &mine) && !of(account("c"), &mine));
        assert!(!of(account("*"), &other) && !of(account("b"), &other) && !of(account("*"), &joe));
    }

    #[test]
    fn resources_are_matched_by_verb_group_resource_and_namespace() {
        let joe = Identity::authenticated("joe".into(), Vec::new());
        let of = |rule: Value, method: &str, uri: &str| {
            let rule = json!({"subjects": [{"kind": "User", "user": {"name": "joe"}}], "resourceRules": [rule]});
            matches(&rule, &joe, method, uri)
        };
        let rule = |namespaces: Value, cluster: bool| {
            json!({"verbs": ["list", "get"], "apiGroups": [""], "namespaces": namespaces, "clusterScope": cluster,
                "resources": ["pods", "pods/log", "nodes", "namespaces"]})
        };
        let in_a = rule(json!(["a"]), false);
        assert!(of(in_a.clone(), "GET", "/api/v1/namespaces/a/pods"));
        assert!(of(in_a.clone(), "GET", "/api/v1/namespaces/a/pods/p/log"));
        assert!(of(in_a.clone(), "GET", "/api/v1/namespaces/a"), "a namespace is in itself");
        for (method, other) in [
            ("GET", "/api/v1/namespaces/a/pods/p/status"),
            ("GET", "/api/v1/namespaces/b/pods"),
            ("POST", "/api/v1/namespaces/a/pods"),
            ("GET", "/apis/apps/v1/namespaces/a/pods"),
            ("GET", "/api/v1/pods"),
            ("GET", "/version"),
        ] {
            assert!(!of(in_a.clone(), method, other), "{method} {other}");
        }
        let anywhere = rule(json!(["*"]), true);
        assert!(of(anywhere.clone(), "GET", "/api/v1/pods") && of(anywhere.clone(), "HEAD", "/api/v1/nodes/n"));
        assert!(!of(rule(json!(["*"]), false), "GET", "/api/v1/nodes"));
        assert!(!of(anywhere, "GET", "/api/v1/pods?watch=1"), "a watch is no list");
    }

    #[test]
    fn paths_are_matched_whole_or_by_what_they_begin_with() {
        let of = |url: &str, method: &str, uri: &str| {
            let rule = json!({"subjects": [{"kind": "Group", "group": {"name": "*"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [url]}]});
            matches(&rule, &Identity::anonymous(), method, uri)
        };
        assert!(of("/healthz", "GET", "/healthz") && of("/healthz", "GET", "/healthz/etcd") && of("*", "GET", "/x"));
        assert!(of("/openapi/*", "GET", "/openapi/v2"));
        assert!(!of("/healthz", "GET", "/healthzz") && !of("/healthz", "HEAD", "/healthz"));
        assert!(!of("/openapi/*", "GET", "/openapi") && !of("*", "GET", "/api/v1/pods"));
    }
}
