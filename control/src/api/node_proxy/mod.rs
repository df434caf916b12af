//! Requests that a node's agent answers: the logs of its pods, streams to their containers and ports, and whatever is
//! asked of `nodes/{name}/proxy`.
//!
//! Decides which agent is meant and whether it can have an answer; the answer itself is streamed through untouched.

mod agent;
mod agent_handshakes;
#[cfg(test)]
pub(in crate::api) mod agent_tests;
mod container_choice;
mod log_options;
mod log_start;
mod log_websocket;
mod pod_network;
mod pod_streams;
mod pod_subnets;
#[cfg(test)]
pub(in crate::api) mod stream_tests;
mod upgrade;

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use fairlead_client::Object;
use http::{Method, Request, StatusCode, Uri};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::{
    api::object_proxy::{FindDestination, ObjectProxy},
    auth::stream_limit::StreamLimit,
    proxy_headers,
    request::{RequestInfo, Verb, pod_stream::PodStream},
    status::{Status, Subject},
    store::Store,
    webhook::Dial,
};
use agent::{AgentAddress, AgentError};
pub use agent::{Agents, AgentsError};
use log_options::LogOptions;
use log_websocket::Handshake;
pub use pod_network::PodNetwork;
pub use pod_streams::forwarded_ports;
pub use pod_subnets::PodSubnets;

/// Port of an agent that has not said otherwise.
const AGENT_PORT: u16 = 10250;

/// The namespace and the name of the pod that a request is about.
fn named_pod(info: &RequestInfo) -> Result<(&str, &str), Status> {
    let path = info.resource().ok_or_else(Status::unknown_path)?;
    let (Some(namespace), Some(name)) = (&path.namespace, &path.name) else { return Err(Status::unknown_path()) };
    Ok((namespace, name))
}

/// Passes requests on to agents, and to servers in pods.
pub struct NodeProxy {
    store: Arc<dyn Store>,
    agents: Agents,
    streams: StreamLimit,
    objects: ObjectProxy,
}

impl NodeProxy {
    /// `store` holds the Nodes and Pods that addresses are looked up from; `network` leads to pods.
    pub fn new(store: Arc<dyn Store>, agents: Agents, network: Arc<dyn Dial>) -> Self {
        Self { objects: ObjectProxy::new(store.clone(), network), store, agents, streams: StreamLimit::default() }
    }

    /// Answers a request for `/proxy` of a pod or a Service. `find` says to which pod it leads.
    pub async fn pod_server(
        &self,
        find: FindDestination,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response, Status> {
        let path = info.resource().ok_or_else(Status::unknown_path)?;
        let counted = self.streams.admit(&info.user()?.name)?;
        self.objects.answer(path, find, request, counted).await
    }

    /// Answers a request for `/proxy` of a node: its agent does.
    pub async fn agent(&self, info: &RequestInfo, request: Request<Body>) -> Result<Response, Status> {
        let path = info.resource().ok_or_else(Status::unknown_path)?;
        let name = path.name.as_deref().ok_or_else(Status::unknown_path)?;
        self.forward(name, &path.rest, request).await
    }

    fn object<K: Object>(&self, resource: &str, key: &str, name: &str) -> Result<K, Status> {
        let snapshot = self.store.snapshot();
        let object =
            snapshot.get(resource, key).ok_or_else(|| Status::not_found(Subject { group: "", resource, name }))?;
        decoded(&object.json()).map_err(|e| Status::internal(format!("{resource} {key:?}: {e}")))
    }

    /// Where the agent of a node listens.
    fn agent_of(&self, node: &str, port: Option<u16>) -> Result<AgentAddress, Status> {
        agent_address(node, &self.object("nodes", node, node)?, port)
    }

    /// The log of a container, over a WebSocket where the client asks for one: whether it can have that is settled
    /// before the agent is asked.
    pub async fn pod_log(&self, info: &RequestInfo, request: Request<Body>) -> Result<Response, Status> {
        let (namespace, pod) = named_pod(info)?;
        if info.verb != Verb::Get {
            return Err(Status::method_not_allowed(Subject { group: "", resource: "pods", name: pod }));
        }
        let options = LogOptions::of(&info.query)?;
        let object: Pod = self.object("pods", &format!("{namespace}/{pod}"), pod)?;
        let container = container_choice::container(&object, &options.container)?;
        let node = object.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
        let source = match node {
            // Kubernetes, too, has an empty log for a pod that is nowhere yet.
            None => None,
            Some(node) => {
                log_start::check(&object, &container, options.previous)?;
                let path = format!("/containerLogs/{namespace}/{pod}/{container}?{}", options.to_query());
                let asked = Request::get(path).body(Body::empty()).map_err(|e| Status::bad_request(e.to_string()))?;
                Some((self.agent_of(node, None)?, asked))
            }
        };
        let socket = match Handshake::of(request) {
            Ok(None) => None,
            Ok(Some(handshake)) => Some((handshake, self.streams.admit(&info.user()?.name)?)),
            Err(error) => return Ok(error.into_response()),
        };
        let log = match source {
            None => (StatusCode::OK, [(http::header::CONTENT_TYPE, "text/plain")], "").into_response(),
            Some((agent, asked)) => self.agents.send(&agent, asked).await.map_err(refused)?,
        };
        if !log.status().is_success() {
            return Err(agent::error_of(log).await);
        }
        Ok(match socket {
            Some((handshake, counted)) => handshake.answer(log.into_body(), counted),
            None => log,
        })
    }

    /// Connects to a container or a port of a pod, through its agent.
    pub async fn pod_stream(
        &self,
        stream: PodStream,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response, Status> {
        let (namespace, pod) = named_pod(info)?;
        if !matches!(*request.method(), Method::GET | Method::POST) {
            return Err(Status::method_not_allowed(Subject { group: "", resource: "pods", name: pod }));
        }
        let object: Pod = self.object("pods", &format!("{namespace}/{pod}"), pod)?;
        let path = pod_streams::agent_path(stream, &object, &info.query)?;
        let agent = self.agent_of(pod_streams::node(&object)?, None)?;
        let counted = self.streams.admit(&info.user()?.name)?;
        upgrade::pass_on(&self.agents, &agent, &path, request, counted).await
    }

    /// `node` may carry a scheme and a port, as in `https:NAME:PORT`; `path` is passed on as it came, not decoded: what
    /// an encoded slash means is the agent's to say.
    async fn forward(&self, node: &str, path: &str, mut request: Request<Body>) -> Result<Response, Status> {
        let (name, port) = node_and_port(node)?;
        let agent = self.agent_of(name, port)?;
        let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
        *request.uri_mut() = format!("{}{query}", if path.is_empty() { "/" } else { path })
            .parse::<Uri>()
            .map_err(|e| Status::bad_request(format!("the path cannot be passed on: {e}")))?;
        // The caller's right to the API is not the agent's business, and its credential must not leave this process.
        proxy_headers::drop_credentials(request.headers_mut());
        self.agents.send(&agent, request).await.map_err(refused)
    }
}

fn decoded<K: Object>(json: &[u8]) -> serde_json::Result<K> {
    K::decode(json)
}

/// Where the agent of a node listens, going by what its Node says.
fn agent_address(name: &str, node: &Node, port: Option<u16>) -> Result<AgentAddress, Status> {
    let status = node.status.as_ref();
    let mut addresses = status.and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    let internal = addresses.find(|address| address.type_ == "InternalIP");
    let ip: IpAddr = internal.and_then(|a| a.address.parse().ok()).ok_or_else(|| {
        unavailable(format!("node {name:?} has no address of type InternalIP: its agent has not registered yet"))
    })?;
    let endpoint = status.and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref());
    let said = endpoint.and_then(|endpoint| u16::try_from(endpoint.port).ok());
    Ok(AgentAddress { node: name.to_owned(), ip, port: port.or(said).unwrap_or(AGENT_PORT) })
}

fn node_and_port(text: &str) -> Result<(&str, Option<u16>), Status> {
    let bad = || Status::bad_request(format!("{text:?} does not name a node: use NAME, NAME:PORT or https:NAME:PORT"));
    let (name, port) = match text.split(':').collect::<Vec<_>>()[..] {
        [name] => (name, ""),
        [name, port] | ["https", name, port] => (name, port),
        _ => return Err(bad()),
    };
    let port = if port.is_empty() { None } else { Some(port.parse().map_err(|_| bad())?) };
    if name.is_empty() { Err(bad()) } else { Ok((name, port)) }
}

fn refused(error: AgentError) -> Status {
    let message = with_sources(&error);
    match error {
        AgentError::Unreachable { .. } | AgentError::TimedOut { .. } => unavailable(message),
        AgentError::Untrusted { .. }
        | AgentError::Protocol { .. }
        | AgentError::Switched { .. }
        | AgentError::Redirect { .. } => Status { code: 502, reason: "BadGateway", message, details: None },
    }
}

/// An error and what it comes from, in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn unavailable(message: String) -> Status {
    Status { code: 503, reason: "ServiceUnavailable", message, details: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_be_named_with_its_port() {
        assert_eq!(node_and_port("n1").unwrap(), ("n1", None));
        assert_eq!(node_and_port("n1:10250").unwrap(), ("n1", Some(10250)));
        assert_eq!(node_and_port("https:n1:10250").unwrap(), ("n1", Some(10250)));
        assert_eq!(node_and_port("https:n1:").unwrap(), ("n1", None));
        for text in ["", ":1", "n1:port", "ftp:n1:1", "a:b:c:d"] {
            assert_eq!(node_and_port(text).unwrap_err().code, 400, "{text}");
        }
    }
}
