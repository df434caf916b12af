//! Who gets into pods and nodes: exec, attach, port-forward, proxies, logs, ephemeral containers, evictions, bindings.

use serde_json::json;

use super::{Act, Acts, Who, ask};
use crate::{exchange::Request, servers::Actor};

/// The empty one shows no credential.
const USERS: [&str; 11] = [
    "",
    "joe",
    "pod-reader",
    "pod-debugger",
    "stream-reader",
    "node-reader",
    "subresources",
    "everywhere:view",
    "everywhere:edit",
    "everywhere:system:kubelet-api-admin",
    "everywhere:system:basic-user",
];

pub fn acts() -> Acts {
    let pod = "/api/v1/namespaces/team-a/pods/of-none";
    let mut acts = Acts::new();
    for user in USERS {
        for method in ["GET", "POST"] {
            for path in [
                format!("{pod}/exec?command=id&container=c&stdout=1"),
                format!("{pod}/attach?container=c&stdout=1"),
                format!("{pod}/portforward?ports=80"),
                "/api/v1/namespaces/team-a/pods/missing/exec?command=id&stdout=1".to_owned(),
            ] {
                acts.push(asked_by(user, Request::new(method, path)));
            }
        }
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
            for path in [
                format!("{pod}/proxy/"),
                format!("{pod}/proxy/a/b"),
                "/api/v1/namespaces/team-a/services/missing/proxy/".to_owned(),
                "/api/v1/nodes/n1/proxy/pods".to_owned(),
                "/api/v1/nodes/n1/proxy/metrics".to_owned(),
            ] {
                acts.push(asked_by(user, Request::new(method, path)));
            }
        }
        acts.push(asked_by(user, Request::get(format!("{pod}/log?container=c"))));
        let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "example.com/d"}]}});
        for path in [
            format!("{pod}/ephemeralcontainers?dryRun=All"),
            format!("{pod}?dryRun=All"),
            format!("{pod}/resize?dryRun=All"),
            format!("{pod}/status?dryRun=All"),
        ] {
            let strategic = Request::patch(path, debug.clone());
            acts.push(asked_by(user, strategic.header("content-type", "application/strategic-merge-patch+json")));
        }
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "of-none"}});
        acts.push(asked_by(user, Request::post(format!("{pod}/eviction?dryRun=All"), eviction)));
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "of-none"},
            "target": {"kind": "Node", "name": "n1"}});
        acts.push(asked_by(user, Request::post(format!("{pod}/binding?dryRun=All"), binding.clone())));
        acts.push(asked_by(user, Request::post("/api/v1/namespaces/team-a/bindings?dryRun=All", binding)));
    }
    acts
}

/// Asked of both servers. Neither has a node that answers, so that no stream is opened for those who may, either.
fn asked_by(user: &str, request: Request) -> Act {
    match user {
        "" => Act::Ask { actor: Who::Known(Actor::Anonymous), request },
        user => ask(user, request),
    }
}
