//! What is asked: every verb on every resource and subresource that the reference serves, in namespaces and names by
//! turns, and on paths.

use serde_json::{Value, json};

use crate::{
    exchange::Request,
    kit::Result,
    servers::{Actor, Servers},
    subjects::Subject,
};

/// What a review asks about.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    Resource(Resource),
    Path { verb: &'static str, path: &'static str },
}

/// A verb on a resource. Empty text is not said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// A field and its value.
    pub selects: Option<(&'static str, String)>,
}

/// A resource that the reference serves.
#[derive(Clone, Debug)]
pub struct Served {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub namespaced: bool,
    /// The empty one first.
    pub subresources: Vec<String>,
}

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const PATHS: [&str; 26] = [
    "/",
    "/api",
    "/api/",
    "/api/v1",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/healthz",
    "/healthz/",
    "/healthz/etcd",
    "/livez",
    "/livez/ping",
    "/readyz",
    "/readyz/x/y",
    "/metrics",
    "/metrics/slis",
    "/version",
    "/version/",
    "/openapi/v2",
    "/openapi/v3/apis/apps/v1",
    "/logs",
    "/debug/pprof",
    "/flagz",
    "/made/x",
    "/other/x",
    "/.well-known/openid-configuration",
];

impl Question {
    /// As a review asks it.
    pub fn spec(&self, subject: &Subject) -> Value {
        let mut spec = subject.spec();
        match self {
            Self::Path { verb, path } => spec["nonResourceAttributes"] = json!({"verb": verb, "path": path}),
            Self::Resource(r) => {
                let mut asked = json!({"verb": r.verb, "group": r.group, "version": r.version, "resource": r.resource,
                    "subresource": r.subresource, "namespace": r.namespace, "name": r.name});
                if let Some((field, value)) = &r.selects {
                    asked["fieldSelector"] =
                        json!({"requirements": [{"key": field, "operator": "In", "values": [value]}]});
                }
                spec["resourceAttributes"] = asked;
            }
        }
        spec
    }
}

/// All that the reference serves, each group in the version that it prefers.
pub async fn served(servers: &Servers) -> Result<Vec<Served>> {
    let mut found = Vec::new();
    for path in ["/api", "/apis"] {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let get = Request::get(path).header("Accept", accept);
        let read = servers.theirs.send(&servers.credentials, &Actor::Admin, &get).await?;
        for group in read.body["items"].as_array().into_iter().flatten() {
            let version = &group["versions"][0];
            for resource in version["resources"].as_array().into_iter().flatten() {
                let below = resource["subresources"].as_array().into_iter().flatten();
                let below = below.filter_map(|one| one["subresource"].as_str().map(str::to_owned));
                found.push(Served {
                    group: group["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                    version: version["version"].as_str().unwrap_or_default().to_owned(),
                    resource: resource["resource"].as_str().unwrap_or_default().to_owned(),
                    namespaced: resource["scope"] == "Namespaced",
                    subresources: std::iter::once(String::new()).chain(below).collect(),
                });
            }
        }
    }
    Ok(found)
}

/// All questions to one subject. `turn` chooses which namespace and name go with which verb.
pub fn questions(subject: &Subject, served: &[Served], turn: usize) -> Vec<Question> {
    let mut all = Vec::new();
    for (at, of) in served.iter().enumerate() {
        for (below, subresource) in of.subresources.iter().enumerate() {
            for (number, verb) in VERBS.into_iter().enumerate() {
                let turn = turn + at + 3 * below + 5 * number;
                let asked = Resource {
                    verb,
                    group: of.group.clone(),
                    version: of.version.clone(),
                    resource: of.resource.clone(),
                    subresource: subresource.clone(),
                    ..Resource::default()
                };
                all.push(Question::Resource(placed(asked, subject, of.namespaced, turn)));
            }
        }
    }
    all.extend(special(subject).into_iter().map(Question::Resource));
    for (at, path) in PATHS.into_iter().enumerate() {
        let verbs = ["get", "head", "post", "put", "delete", "*", "GET"];
        all.push(Question::Path { verb: "get", path });
        all.push(Question::Path { verb: verbs[(turn + at) % verbs.len()], path });
    }
    all
}

fn placed(asked: Resource, subject: &Subject, namespaced: bool, turn: usize) -> Resource {
    let own = subject.namespace.as_str();
    let (namespace, name) = match (namespaced, turn % 7) {
        (true, 0 | 1) => (own, ""),
        (true, 2) => (own, "of-n1"),
        (true, 3) => (own, if subject.user.contains("node") { "n1" } else { "made" }),
        (true, 4) => ("team-b", ""),
        (true, 5) => ("", ""),
        (true, _) => ("kube-node-lease", "n1"),
        (false, 0 | 1) => ("", ""),
        (false, 2) => ("", "n1"),
        (false, 3) => ("", "of-n1"),
        (false, 4) => ("", "view"),
        (false, 5) => (own, "app"),
        (false, _) => ("", "ghost"),
    };
    let selects = match (asked.verb, turn % 3) {
        ("list" | "watch" | "deletecollection", 0) => Some(("spec.nodeName", "n1".to_owned())),
        ("list" | "watch" | "deletecollection", 1) => Some(("metadata.name", "n1".to_owned())),
        _ => None,
    };
    Resource { namespace: namespace.to_owned(), name: name.to_owned(), selects, ..asked }
}

/// Verbs and resources that only authorisation knows.
fn special(subject: &Subject) -> Vec<Resource> {
    let rbac = "rbac.authorization.k8s.io";
    let authentication = "authentication.k8s.io";
    let certificates = "certificates.k8s.io";
    let table = [
        ("escalate", rbac, "clusterroles", "", ""),
        ("escalate", rbac, "clusterroles", "", "made-up"),
        ("escalate", rbac, "roles", "", ""),
        ("bind", rbac, "clusterroles", "", "view"),
        ("bind", rbac, "clusterroles", "", "admin"),
        ("bind", rbac, "roles", "", "local"),
        ("impersonate", "", "users", "", "jane"),
        ("impersonate", "", "users", "", "root"),
        ("impersonate", "", "groups", "", "devs"),
        ("impersonate", "", "groups", "", "system:masters"),
        ("impersonate", "", "serviceaccounts", "", "robot"),
        ("impersonate", authentication, "userextras", "scopes", "view"),
        ("impersonate", authentication, "userextras", "scopes", "edit"),
        ("impersonate", authentication, "uids", "", "7"),
        ("approve", certificates, "signers", "", "example.com/mine"),
        ("approve", certificates, "signers", "", "example.com/*"),
        ("approve", certificates, "signers", "", "kubernetes.io/kube-apiserver-client"),
        ("approve", certificates, "signers", "", "kubernetes.io/kubelet-serving"),
        ("approve", certificates, "signers", "", "kubernetes.io/legacy-unknown"),
        ("sign", certificates, "signers", "", "kubernetes.io/kube-apiserver-client-kubelet"),
        ("sign", certificates, "signers", "", "example.com/mine"),
        ("attest", certificates, "signers", "", "example.com/mine"),
        ("use", "policy", "podsecuritypolicies", "", "p"),
        ("request-serviceaccounts-token-audience", "", "vault", "", "robot"),
        ("*", "*", "*", "", ""),
        ("get", "*", "*", "", ""),
        ("*", "", "pods", "", ""),
        ("get", "made.example.com", "things", "", "x"),
        ("get", "made.example.com", "things", "scale", "x"),
        ("get", "", "pods", "made-up", "x"),
        ("proxy", "", "nodes", "", "n1"),
        ("get", "resource.k8s.io", "resourceclaims", "", "x"),
        ("update", "resource.k8s.io", "resourceclaims", "driver", "x"),
        ("list", "certificates.k8s.io", "podcertificaterequests", "", ""),
    ];
    let of = |(verb, group, resource, subresource, name): (&'static str, &str, &str, &str, &str), namespace: &str| {
        Resource {
            verb,
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            selects: None,
        }
    };
    table.into_iter().flat_map(|one| [of(one, ""), of(one, &subject.namespace)]).collect()
}
