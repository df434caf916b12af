//! `/proxy`: of a node, requests that its agent answers, through `node_proxy`; of a pod or Service, requests that a
//! server in a pod answers, through `object_proxy`.

use axum::{body::Body, response::Response};
use http::Request;

use super::{ConnectionOptions, Responder, Subresource};
use crate::{
    api::{NodeProxy, Status, object_proxy::Destination},
    request::RequestInfo,
};

/// The declaration of this subresource.
pub static PROXY: Subresource = Subresource {
    segment: "proxy",
    verbs: &["create", "delete", "get", "patch", "update"],
    any_path: true,
    connection: Some(&ConnectionOptions {
        kinds: &[("nodes", "NodeProxyOptions"), ("pods", "PodProxyOptions"), ("services", "ServiceProxyOptions")],
        set_options: |call, options| {
            options["path"] = call.info.resource().map(|resource| resource.rest.as_str()).unwrap_or_default().into();
        },
    }),
    responder: Responder::Node(|nodes, info, request| Box::pin(forward(nodes, info, request))),
    ..Subresource::PLAIN
};

async fn forward(nodes: &NodeProxy, info: &RequestInfo, request: Request<Body>) -> Result<Response, Status> {
    let path = info.resource().ok_or_else(Status::unknown_path)?;
    match path.resource.as_str() {
        "pods" => nodes.pod_server(Destination::of_pod, info, request).await,
        "services" => nodes.pod_server(Destination::of_service, info, request).await,
        _ => nodes.agent(info, request).await,
    }
}
