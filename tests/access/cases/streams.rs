//! Who gets into pods and nodes: exec, attach, port-forward, proxies, logs, ephemeral containers, evictions, bindings.

use serde_json::json;

use super::{Acts, ask};
use crate::{exchange::Request, servers::Actor};

const USERS: [&str; 10] = [
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
                acts.push(refused(user, Request::new(method, path)));
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
                acts.push(refused(user, Request::new(method, path)));
            }
        }
        acts.push(refused(user, Request::get(format!("{pod}/log?container=c"))));
        let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "example.com/d"}]}});
        for path in [
            format!("{pod}/ephemeralcontainers?dryRun=All"),
            format!("{pod}?dryRun=All"),
            format!("{pod}/resize?dryRun=All"),
            format!("{pod}/status?dryRun=All"),
        ] {
            let strategic = Request::patch(path, debug.clone());
            acts.push(refused(user, strategic.header("content-type", "application/strategic-merge-patch+json")));
        }
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "of-none"}});
        acts.push(refused(user, Request::post(format!("{pod}/eviction?dryRun=All"), eviction)));
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "of-none"},
            "target": {"kind": "Node", "name": "n1"}});
        acts.push(refused(user, Request::post(format!("{pod}/binding?dryRun=All"), binding.clone())));
        acts.push(refused(user, Request::post("/api/v1/namespaces/team-a/bindings?dryRun=All", binding)));
    }
    acts
}

/// Asked by whom no stream is opened for: both refuse, or neither finds a node that answers.
fn refused(user: &str, request: Request) -> super::Act {
    match user {
        "" => super::Act::Ask { actor: super::Who::Known(Actor::Anonymous), request },
        user => ask(user, request),
    }
}
