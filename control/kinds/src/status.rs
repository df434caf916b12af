//! Every refusal of the API as a Kubernetes `Status`, made in one place.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::kinds::{FieldError, FieldErrorReason, error_budget};

/// An API error: HTTP code, reason and message as Kubernetes spells them.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP code of the answer.
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `BadRequest`, `Forbidden`, `Unauthorized`, `Expired`, …;
    /// empty where Kubernetes gives none.
    pub reason: &'static str,
    /// For people, in the words of Kubernetes.
    pub message: String,
    /// The `details` object: name, group, kind, causes, retryAfterSeconds.
    pub details: Option<Value>,
}

/// What an error is about: `pods "web"`, `deployments.apps "web"`.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// The plural resource name, or for `Invalid` the kind.
    pub resource: &'a str,
    /// `metadata.name`; empty where the request is about many objects.
    pub name: &'a str,
}

impl Subject<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    fn details(&self) -> Value {
        let fields = [("name", self.name), ("group", self.group), ("kind", self.resource)];
        fields
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key, Value::from(value)))
            .collect()
    }
}

impl Status {
    /// 404: the object does not exist.
    pub fn not_found(subject: Subject) -> Self {
        let message = format!("{} \"{}\" not found", subject.qualified(), subject.name);
        Self { code: 404, reason: "NotFound", message, details: Some(subject.details()) }
    }

    /// 409: an object of this name exists.
    pub fn already_exists(subject: Subject) -> Self {
        let message = format!("{} \"{}\" already exists", subject.qualified(), subject.name);
        Self { code: 409, reason: "AlreadyExists", message, details: Some(subject.details()) }
    }

    /// 409: the object has changed, or a precondition failed.
    pub fn conflict(subject: Subject, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{}\": {why}", subject.qualified(), subject.name);
        Self { code: 409, reason: "Conflict", message, details: Some(subject.details()) }
    }

    /// 403: the user may not do this, or a rule refuses it.
    pub fn forbidden(subject: Subject, why: &str) -> Self {
        let named = if subject.name.is_empty() { String::new() } else { format!(" \"{}\"", subject.name) };
        let message = format!("{}{named} is forbidden: {why}", subject.qualified());
        Self { code: 403, reason: "Forbidden", message, details: Some(subject.details()) }
    }

    /// 401: the request has no valid credentials.
    pub fn unauthorized() -> Self {
        Self { code: 401, reason: "Unauthorized", message: "Unauthorized".into(), details: None }
    }

    /// 400: the request cannot be read.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, reason: "BadRequest", message: message.into(), details: None }
    }

    /// 500: an error of this program, whose reason is in the log.
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            code: 500,
            reason: "InternalError",
            message: format!("Internal error occurred: {}", message.into()),
            details: None,
        }
    }

    /// 500 without a reason: what Kubernetes answers where a plugin or a handler fails with an error that is none of
    /// the API. The message is for the client.
    pub fn plain_error(message: impl Into<String>) -> Self {
        Self { code: 500, reason: "", message: message.into(), details: None }
    }

    /// A path under which nothing is served.
    pub fn unknown_path() -> Self {
        let message = "the server could not find the requested resource".into();
        Self { code: 404, reason: "NotFound", message, details: Some(json!({})) }
    }

    /// 405: the kind does not have this verb.
    pub fn method_not_allowed(subject: Subject) -> Self {
        let message = "the server does not allow this method on the requested resource".into();
        let details = Subject { name: "", ..subject }.details();
        Self { code: 405, reason: "MethodNotAllowed", message, details: Some(details) }
    }

    /// 405: the definition of a custom resource is being deleted.
    pub fn terminating_definition(subject: Subject) -> Self {
        let message = "create not allowed while custom resource definition is terminating".into();
        Self { message, ..Self::method_not_allowed(subject) }
    }

    /// 406: the client takes no form in which the media types in `served` are answered.
    pub fn not_acceptable<T: AsRef<str>>(served: &[T]) -> Self {
        let served: Vec<&str> = served.iter().map(AsRef::as_ref).collect();
        let message = format!("only the following media types are accepted: {}", served.join(", "));
        Self { code: 406, reason: "NotAcceptable", message, details: None }
    }

    /// 406: the client takes none of the media types in `served`.
    pub fn no_representation<T: AsRef<str>>(served: &[T]) -> Self {
        let served: Vec<&str> = served.iter().map(AsRef::as_ref).collect();
        let message = format!("406: Not Acceptable\n\nAvailable representations: {}", served.join(", "));
        Self { code: 406, reason: "NotAcceptable", message, details: Some(json!({})) }
    }

    /// 406: the form that was asked for is one of lists, and this is none, or the other way round. `found` is what is
    /// answered, as Go names its type.
    pub fn wrong_form(asked: &str, found: &str, is_list: bool) -> Self {
        let is = if is_list { "is a list" } else { "is not a list" };
        let message = format!("you requested {asked}, but the requested object {is} ({found})");
        Self { code: 406, reason: "NotAcceptable", message, details: None }
    }

    /// The resource version asked for is not known any more: list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self { code: 410, reason: "Expired", message: message.into(), details: None }
    }

    /// 413: the body, or what a patch makes of it, is too large.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self { code: 413, reason: "RequestEntityTooLarge", message: message.into(), details: None }
    }

    /// 415: bodies of objects are of other media types.
    pub fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/json, application/yaml, application/vnd.kubernetes.protobuf";
        Self { code: 415, reason: "UnsupportedMediaType", message: message.into(), details: None }
    }

    /// 415: this is no media type of a patch.
    pub fn unsupported_patch_type() -> Self {
        let message = "415: Unsupported Media Type".into();
        Self { code: 415, reason: "UnsupportedMediaType", message, details: Some(json!({})) }
    }

    /// 429: not now. `cause` says why, and the client may ask again after so many seconds.
    pub fn too_many_requests(message: &str, seconds: u32, cause: &str, why: &str) -> Self {
        let mut details = json!({"causes": [{"reason": cause, "message": why}]});
        if seconds > 0 {
            details["retryAfterSeconds"] = seconds.into();
        }
        Self { code: 429, reason: "TooManyRequests", message: message.into(), details: Some(details) }
    }

    /// A resource version that this server has not reached.
    pub fn version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        let details = json!({"causes": causes, "retryAfterSeconds": 1});
        Self { code: 504, reason: "Timeout", message, details: Some(details) }
    }

    /// The store has no room for the write.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self { code: 507, reason: "InsufficientStorage", message: message.into(), details: None }
    }

    /// 503: not ready yet, or stopping.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 503, reason: "ServiceUnavailable", message: message.into(), details: None }
    }

    /// 504: the request took longer than it may.
    pub fn timeout(message: &str) -> Self {
        let details = json!({"causes": []});
        Self { code: 504, reason: "Timeout", message: format!("Timeout: {message}"), details: Some(details) }
    }

    /// 422 with one cause a field, of those that are told; `subject.resource` is the *kind* here, as in Kubernetes.
    pub fn invalid(subject: Subject, errors: &[FieldError]) -> Self {
        // The text tells what is there twice once, as Go's list of errors does.
        let mut list: Vec<String> = Vec::with_capacity(errors.len());
        let mut seen = BTreeSet::new();
        let (errors, untold) = error_budget::told(errors);
        for text in errors.iter().map(|e| format!("{}: {}", e.path, e.message)) {
            if seen.insert(text.clone()) {
                list.push(text);
            }
        }
        if untold > 0 {
            list.push(format!("… and {untold} more"));
        }
        let list = if list.len() == 1 { list[0].clone() } else { format!("[{}]", list.join(", ")) };
        let message = format!("{} \"{}\" is invalid: {list}", subject.qualified(), subject.name);
        let causes: Vec<Value> =
            errors.iter().map(|e| json!({"reason": e.reason.cause(), "message": e.message, "field": e.path})).collect();
        let mut details = subject.details();
        details["causes"] = Value::Array(causes);
        Self { code: 422, reason: "Invalid", message, details: Some(details) }
    }

    /// The `Status` object of Kubernetes.
    pub fn to_json(&self) -> Value {
        let mut v = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code});
        if !self.reason.is_empty() {
            v["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            v["details"] = details.clone();
        }
        v
    }
}

/// The reasons that Kubernetes has words for.
const REASONS: [&str; 22] = [
    "",
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "StoreReadError",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
    "NamespaceTerminating",
    "BadGateway",
];

/// How many reasons are kept that others made up, and how long they may be.
const MOST_OTHERS: usize = 512;
const LONGEST_OTHER: usize = 512;

/// A reason that came from outside, from a webhook say. Reasons live as long as the program: those that others made up
/// are kept up to a bound, and beyond it there is none.
pub fn reason(text: &str) -> &'static str {
    static OTHERS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    if let Some(known) = REASONS.iter().find(|known| **known == text) {
        return known;
    }
    let mut others = OTHERS.lock();
    if let Some(known) = others.get(text) {
        return known;
    }
    if others.len() >= MOST_OTHERS || text.len() > LONGEST_OTHER {
        return "";
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    others.insert(kept);
    kept
}

impl FieldErrorReason {
    /// `FieldValueInvalid` and so on.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::TooMany => "FieldValueTooMany",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::Internal | Self::Untold => "InternalError",
        }
    }
}
