//! `/proxy`: of a node, requests that its agent answers, through `node_proxy`; of a pod or Service, requests that a
//! server in a pod answers, through `object_proxy`.

use axum::{body::Body, response::Response};
use http::Request;

use super::{ConnectionOptions, NodeHandler, Responder, Subresource};
use crate::{
    api::{NodeProxy, Status, object_proxy::Destination},
    request::RequestInfo,
};

/// A kind whose objects stand for servers.
struct Proxied {
    /// The plural.
    resource: &'static str,
    /// The kind of the options of a connection.
    options: &'static str,
    /// Sends a request on.
    forward: NodeHandler,
}

const PROXIED: &[Proxied] = &[
    Proxied {
        resource: "nodes",
        options: "NodeProxyOptions",
        forward: |nodes, info, request| Box::pin(nodes.agent(info, request)),
    },
    Proxied {
        resource: "pods",
        options: "PodProxyOptions",
        forward: |nodes, info, request| Box::pin(nodes.pod_server(Destination::of_pod, info, request)),
    },
    Proxied {
        resource: "services",
        options: "ServiceProxyOptions",
        forward: |nodes, info, request| Box::pin(nodes.pod_server(Destination::of_service, info, request)),
    },
];

/// The declaration of this subresource.
pub static PROXY: Subresource = Subresource {
    segment: "proxy",
    verbs: &["create", "delete", "get", "patch", "update"],
    any_path: true,
    connection: Some(&ConnectionOptions {
        kinds: &CONNECTION_KINDS,
        set_options: |call, options| {
            options["path"] = call.info.resource().map(|resource| resource.rest.as_str()).unwrap_or_default().into();
        },
    }),
    responder: Responder::Node(|nodes, info, request| Box::pin(forward(nodes, info, request))),
    ..Subresource::PLAIN
};

const CONNECTION_KINDS: [(&str, &str); PROXIED.len()] = {
    let mut kinds = [("", ""); PROXIED.len()];
    let mut at = 0;
    while at < kinds.len() {
        kinds[at] = (PROXIED[at].resource, PROXIED[at].options);
        at += 1;
    }
    kinds
};

async fn forward(nodes: &NodeProxy, info: &RequestInfo, request: Request<Body>) -> Result<Response, Status> {
    let path = info.resource().ok_or_else(Status::unknown_path)?;
    let proxied = PROXIED.iter().find(|proxied| proxied.resource == path.resource);
    (proxied.ok_or_else(Status::unknown_path)?.forward)(nodes, info, request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn every_kind_that_has_a_proxy_is_sent_on() {
        let kinds = Kinds::built_in();
        let having: Vec<_> = kinds.iter().filter(|kind| kind.has(PROXY.segment)).collect();
        assert_eq!(having.len(), PROXIED.len());
        for kind in having {
            assert!(PROXY.connection_kind(kind).is_some(), "{kind:?}");
        }
    }
}
