//! Subresources: paths below an object that read or change a part of it, or do something with it.
//!
//! Each is one file with one value: its path segment, its verbs, what it changes and who answers. A kind names the
//! segments of those it has; a subresource is added by its file and a line in [`ALL`].

mod approval;
mod attach;
mod binding;
mod ephemeral_containers;
mod eviction;
mod exec;
#[cfg(test)]
mod facts;
mod finalize;
mod log;
mod port_forward;
mod proxy;
mod resize;
mod scale;
mod status;
mod token;
mod token_for_node;

use axum::{body::Body, response::Response};
use futures::future::BoxFuture;
use http::{Method, Request};
use serde_json::Value;

use super::{Api, NodeProxy, Status, Subject, read, request::Call, write};
use crate::{
    kinds::{FieldError, Kind, reading::text},
    request::{RequestInfo, Verb},
    schema::SentEmpties,
};

/// Every subresource.
pub const ALL: &[&Subresource] = &[
    &approval::APPROVAL,
    &attach::ATTACH,
    &binding::BINDING,
    &ephemeral_containers::EPHEMERAL_CONTAINERS,
    &eviction::EVICTION,
    &exec::EXEC,
    &finalize::FINALIZE,
    &log::LOG,
    &port_forward::PORT_FORWARD,
    &proxy::PROXY,
    &resize::RESIZE,
    &scale::SCALE,
    &status::STATUS,
    &token::TOKEN,
];

/// One subresource.
pub struct Subresource {
    /// The path segment after the object's name.
    pub segment: &'static str,
    /// The verbs that it takes, in Kubernetes' (alphabetical) order.
    pub verbs: &'static [&'static str],
    /// The kind that is sent and answered, where it is not the object's own and no connection's.
    pub form: Option<SubresourceKind>,
    /// What a write through it changes.
    pub effect: Effect,
    /// Whether policies and webhooks are asked about the form alone, and not about the write of the object too.
    pub form_is_admitted: bool,
    /// Answers a `POST` of the form to the collection of its own kind, where that is a kind.
    pub post_form: Option<ApiHandler>,
    /// What policies and webhooks see in the object's place, where that is the form.
    pub view: Option<&'static View>,
    /// What policies and webhooks are asked of, where it opens a connection to what the object stands for.
    pub connection: Option<&'static ConnectionOptions>,
    /// Whether the path may go on after the segment.
    pub any_path: bool,
    /// Answers a request with one of the verbs.
    pub responder: Responder,
}

/// Who answers a request.
#[derive(Clone, Copy)]
pub enum Responder {
    /// This server, given the request's body.
    Api(ApiHandler),
    /// The agent of a node, or a server in a pod, with a stream that OpenAPI does not describe.
    Node(NodeHandler),
}

/// Answers a request, given its body.
pub type ApiHandler = for<'a> fn(&'a Api, &'a Call, &'a [u8]) -> ResponseFuture<'a>;
/// Passes a request on, and its answer back.
pub type NodeHandler = for<'a> fn(&'a NodeProxy, &'a RequestInfo, Request<Body>) -> ResponseFuture<'a>;
/// An answer under way.
pub type ResponseFuture<'a> = BoxFuture<'a, Result<Response, Status>>;

/// A kind that stands for a part of an object, or for something to be done with it.
#[derive(Clone, Copy, Debug)]
pub struct SubresourceKind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// `v1`
    pub version: &'static str,
    /// `Scale`
    pub kind: &'static str,
    /// Path in the OpenAPI definitions: `io.k8s.api.autoscaling.v1.Scale`.
    pub schema: &'static str,
}

/// What a write through a subresource changes.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// The object, by the rules of an update of the whole object.
    Update,
    /// The object, and also what an update may not change.
    SetImmutable,
    /// Some fields of the object; all others stay as they are.
    Fields(&'static FieldWrite),
    /// A part of the object that has rules of its own.
    Part(&'static PartWrite),
    /// Nothing stored, or the object's life.
    Nothing,
}

/// Fields that are written alone.
#[derive(Debug)]
pub struct FieldWrite {
    /// Their paths.
    pub fields: &'static [&'static [&'static str]],
    /// What the kind does with such a write before it validates the object.
    pub prepare: fn(&Kind, new: &mut Value, old: &Value),
}

/// How a part of an object is written. The kind's own rules for an update of the whole object do not hold.
#[derive(Debug)]
pub struct PartWrite {
    /// Leaves of `new` only the part, the rest being as in the stored `old`.
    pub prepare: fn(new: &mut Value, old: &Value),
    /// Reasons why `new` may not be stored in place of `old`, given what was sent empty in any part.
    pub validate: fn(new: &Value, old: &Value, empties: &SentEmpties) -> Vec<FieldError>,
}

/// The form of a subresource that shows a part of an object, and sets it: policies and webhooks see it in the object's
/// place.
#[derive(Debug)]
pub struct View {
    /// The form that stands for an object.
    pub of: fn(kind: &Kind, object: &Value) -> Result<Value, Status>,
    /// The object with what the form says.
    pub put: fn(kind: &Kind, object: &Value, form: &Value) -> Result<Value, Status>,
}

/// A connection to what an object stands for: a stream to a container, or requests that are passed on.
pub struct ConnectionOptions {
    /// The kind of its options, by the plural of the object.
    pub kinds: &'static [(&'static str, &'static str)],
    /// Sets in the options what a request says of them in its query and path.
    pub set_options: fn(&Call, &mut Value),
}

impl Subresource {
    /// For what a subresource does not say: it stores nothing and answers nothing.
    const PLAIN: Self = Self {
        segment: "",
        verbs: &[],
        form: None,
        effect: Effect::Nothing,
        form_is_admitted: false,
        post_form: None,
        view: None,
        connection: None,
        any_path: false,
        responder: Responder::Api(refuse),
    };

    /// What answers a `POST` to the collection of a kind that is the form of a subresource.
    pub fn poster(kind: &Kind) -> Option<ApiHandler> {
        let is_form = |form: SubresourceKind| {
            (form.group, form.version, form.kind) == (&*kind.group, &*kind.version, &*kind.kind)
        };
        ALL.iter().find(|subresource| subresource.form.is_some_and(is_form))?.post_form
    }

    /// Whether the agent of a node answers, or a server in a pod.
    pub fn by_agent(&self) -> bool {
        matches!(self.responder, Responder::Node(_))
    }

    /// The kind of the options of a connection to an object of `kind`; nothing where it makes none.
    pub fn connection_kind(&self, kind: &Kind) -> Option<&'static str> {
        let mut kinds = self.connection?.kinds.iter();
        kinds.find(|(plural, _)| *plural == kind.plural).map(|(_, options)| *options)
    }

    /// The subresource of `kind` at a path segment.
    pub fn of(kind: &Kind, segment: &str) -> Option<&'static Subresource> {
        ALL.iter().copied().find(|s| s.segment == segment && kind.has(segment))
    }

    /// Whether it takes requests with this method.
    pub fn takes(&self, method: &Method) -> bool {
        let verb = match method.as_str() {
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "POST" => "create",
            "DELETE" => "delete",
            _ => return false,
        };
        self.verbs.contains(&verb)
    }

    /// Group, version and kind of what is sent and answered for an object of `kind`.
    pub fn form_of<'a>(&self, kind: &'a Kind) -> (&'a str, &'a str, &'a str) {
        match (self.form, self.connection_kind(kind)) {
            (Some(form), _) => (form.group, form.version, form.kind),
            (None, Some(options)) => ("", "v1", options),
            (None, None) => (&kind.group, &kind.version, &kind.kind),
        }
    }
}

impl PartialEq for Subresource {
    fn eq(&self, other: &Self) -> bool {
        self.segment == other.segment
    }
}

impl Eq for Subresource {}

impl std::fmt::Debug for Subresource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.segment)
    }
}

/// Whether the answer to a request may have no end: a watch, or what an agent streams.
pub fn is_long_running(info: &RequestInfo) -> bool {
    let segment = info.resource().and_then(|resource| resource.subresource.as_deref());
    info.verb == Verb::Watch || ALL.iter().any(|s| s.by_agent() && Some(s.segment) == segment)
}

/// Answers a subresource that has the object's shape.
fn whole<'a>(api: &'a Api, call: &'a Call, body: &'a [u8]) -> ResponseFuture<'a> {
    Box::pin(async move {
        match call.method {
            Method::PUT => write::update(api, call, body).await,
            Method::PATCH => write::patch(api, call, body).await,
            _ => read::get(api, call).await,
        }
    })
}

/// A form that says what is to be done with an object names the object of its path.
fn must_name_the_object(form: &SubresourceKind, given: &Value, name: &str) -> Result<(), Status> {
    match text(&given["metadata"], "name") == name {
        true => Ok(()),
        false => Err(Status::bad_request(format!("name in URL does not match name in {} object", form.kind))),
    }
}

/// 405 about the object of a request.
pub fn refuse<'a>(_: &'a Api, call: &'a Call, _: &'a [u8]) -> ResponseFuture<'a> {
    let kind = &call.target.kind;
    let name = call.target.name.as_deref().unwrap_or_default();
    let subject = Subject { group: &kind.group, resource: &kind.plural, name };
    Box::pin(std::future::ready(Err(Status::method_not_allowed(subject))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::Kinds, request::tests::info};

    #[test]
    fn watches_and_what_an_agent_streams_may_last() {
        for uri in ["/api/v1/pods?watch=1", "/api/v1/namespaces/a/pods/p/log", "/api/v1/nodes/n/proxy/x"] {
            assert!(is_long_running(&info("GET", uri)), "{uri}");
        }
        for subresource in ALL {
            let info = info("GET", &format!("/api/v1/namespaces/a/pods/p/{}", subresource.segment));
            assert_eq!(is_long_running(&info), subresource.by_agent(), "{subresource:?}");
        }
        assert!(!is_long_running(&info("GET", "/api/v1/pods")));
    }

    #[test]
    fn every_subresource_that_a_kind_names_is_answered() {
        for kind in Kinds::built_in().iter() {
            for segment in &kind.subresources {
                assert!(Subresource::of(kind, segment).is_some(), "{kind:?} {segment}");
            }
        }
        let pods = Kinds::built_in().by_path("", "v1", "pods").expect("pods are served");
        assert_eq!(Subresource::of(&pods, "scale"), None);
    }
}
