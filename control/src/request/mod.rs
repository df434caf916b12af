//! What one HTTP request asks for (`RequestInfo`), parsed once, before authentication ends, for all who read it.
//!
//! The gate, the authoriser, limits, metrics and the handlers all read [`RequestInfo`]. Nothing behind this module
//! looks at a path, a query or a selector's text again, so that two parts of the server cannot understand one request
//! differently.
//!
//! | file | what it reads |
//! |---|---|
//! | `path` | the URL's path: group, version, resource, namespace, name, subresource |
//! | `pod_stream` | which stream to a pod a path asks for |
//! | `query` | the options in the URL's query, selectors parsed |
//! | `accept`, `content_type` | the form of the answer, the form of the body |
//! | `audit_id` | the id that its log lines and its answer carry |
//! | `held_bytes` | how much memory an answer holds that is made while it is sent |
//! | `selector` | label and field selectors |

pub mod accept;
pub mod audit_id;
pub mod content_type;
pub mod held_bytes;
pub mod path;
pub mod pod_stream;
pub mod query;
pub mod selector;
mod write;

use std::{any::Any, net::SocketAddr, sync::Arc};

use http::{Method, header};

pub use self::write::WriteRequest;
use self::{
    content_type::ContentType,
    path::{RequestPath, ResourcePath},
    query::Query,
};
use crate::{
    identity::Identity,
    status::{Status, Subject},
};

/// The largest body taken, as in Kubernetes.
pub const MAX_BODY: usize = 3 << 20;

/// Where a request comes from: an extension of requests that came over a connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// A connection's permit to be one of those that there may be at a time: an extension of its requests. Who takes the
/// connection over, for another protocol, keeps it; nobody reads it.
#[derive(Clone, Debug)]
pub struct ConnectionPermit(pub Arc<dyn Any + Send + Sync>);

/// One request, with its body still unread.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// The HTTP method.
    pub method: Method,
    /// What it does to the resource; on other paths [`Verb::Other`].
    pub verb: Verb,
    /// What it is about.
    pub path: RequestPath,
    /// Options and selectors.
    pub query: Query,
    /// `Accept` as it was sent: discovery and OpenAPI choose among forms of their own.
    pub accept: String,
    /// Whether the client takes an answer that is compressed with gzip.
    pub gzip: bool,
    /// Whether a person is to read the answer: `?pretty=true`, or a browser, curl or wget asks.
    pub pretty: bool,
    /// What the body is written in.
    pub content_type: ContentType,
    /// `User-Agent`; empty where the client does not say.
    pub user_agent: String,
    /// Whether the client runs in process: see [`InProcess`].
    pub in_process: bool,
    /// Who asks; `None` until authentication has ended, and for the paths that are open to everyone.
    pub user: Option<Identity>,
}

/// Extension of a request by the control service itself: its scheduler, its controllers.
#[derive(Clone, Copy, Debug)]
pub struct InProcess;

/// Kubernetes' verbs on resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// One object, or one of its subresources.
    Get,
    /// Many objects.
    List,
    /// Changes of many objects, as they come.
    Watch,
    /// A new object.
    Create,
    /// An object in the place of the stored one.
    Update,
    /// A change of the stored object.
    Patch,
    /// One object.
    Delete,
    /// Many objects.
    DeleteCollection,
    /// A method without a verb, such as OPTIONS.
    Other,
}

impl Verb {
    /// The verb as rules and metrics spell it; empty for [`Verb::Other`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Other => "",
        }
    }

    /// Whether the verb may change what is stored.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete | Self::DeleteCollection)
    }

    /// As `RequestInfoFactory` of `k8s.io/apiserver` decides it.
    fn of(method: &Method, path: &ResourcePath, query: &Query) -> Self {
        match *method {
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE if path.name.is_none() => Self::DeleteCollection,
            Method::DELETE => Self::Delete,
            Method::GET | Method::HEAD if path.watch_prefix || path.name.is_none() && query.watch => Self::Watch,
            Method::GET | Method::HEAD if path.name.is_none() => Self::List,
            Method::GET | Method::HEAD => Self::Get,
            _ => Self::Other,
        }
    }
}

impl RequestInfo {
    /// What decides whether the request is allowed, for as long as its answer lasts: see [`Query::without_parameters`].
    pub fn without_parameters(&self) -> Self {
        let query = self.query.without_parameters();
        Self { query, accept: String::new(), user_agent: String::new(), ..self.clone() }
    }

    /// Reads everything but the body. Errors are the client's: a path that cannot be served. What is wrong with an
    /// option stands in the query.
    pub fn of(parts: &http::request::Parts) -> Result<Self, Status> {
        let header = |name| parts.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        // Servers that it is sent on to may take another one for the right one (RFC 9112, section 3.2).
        if parts.headers.get_all(header::HOST).iter().nth(1).is_some() {
            return Err(Status::bad_request("too many Host headers"));
        }
        let path = RequestPath::of(parts.uri.path())?;
        let query = Query::of(parts.uri.query().unwrap_or_default());
        let verb = match &path {
            RequestPath::Resource(path) | RequestPath::Unserved(path) => Verb::of(&parts.method, path, &query),
            RequestPath::Other(_) => Verb::Other,
        };
        if let RequestPath::Resource(resource) = &path
            && resource.watch_prefix
            && verb.is_write()
        {
            let name = resource.name.as_deref().unwrap_or_default();
            let subject = Subject { group: &resource.group, resource: &resource.resource, name };
            return Err(Status::method_not_allowed(subject));
        }
        let accept = header(header::ACCEPT).unwrap_or_default();
        Ok(Self {
            method: parts.method.clone(),
            verb,
            path,
            accept: accept.to_owned(),
            gzip: header(header::ACCEPT_ENCODING).is_some_and(takes_gzip),
            pretty: is_for_a_person(&query, header(header::USER_AGENT).unwrap_or_default()),
            content_type: ContentType::of(header(header::CONTENT_TYPE).unwrap_or_default()),
            user_agent: header(header::USER_AGENT).unwrap_or_default().to_owned(),
            query,
            in_process: parts.extensions.get::<InProcess>().is_some(),
            user: None,
        })
    }

    /// What the request is about, where it is about a resource that may be served.
    pub fn resource(&self) -> Option<&ResourcePath> {
        match &self.path {
            RequestPath::Resource(resource) => Some(resource),
            RequestPath::Unserved(_) | RequestPath::Other(_) => None,
        }
    }

    /// What those who decide take it to be about, where that is a resource.
    pub fn resource_asked(&self) -> Option<&ResourcePath> {
        match &self.path {
            RequestPath::Resource(path) | RequestPath::Unserved(path) => Some(path),
            RequestPath::Other(_) => None,
        }
    }

    /// Who asks; a 401 where nobody was authenticated.
    pub fn user(&self) -> Result<&Identity, Status> {
        self.user.as_ref().ok_or_else(Status::unauthorized)
    }
}

/// As Kubernetes reads `Accept-Encoding`: a weight is not looked at.
fn takes_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|token| token.trim() == "gzip")
}

fn is_for_a_person(query: &Query, user_agent: &str) -> bool {
    match query.parameter("pretty") {
        Some(pretty) if !pretty.is_empty() => matches!(pretty, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        _ => ["curl", "Wget", "Mozilla/5.0"].iter().any(|agent| user_agent.starts_with(agent)),
    }
}

#[cfg(test)]
pub mod tests;
