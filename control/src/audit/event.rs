//! One audit event, and the two forms in which it is written: JSON as `audit.k8s.io/v1` has it, and the one line of
//! the format `legacy`.
//!
//! Source: `k8s.io/apiserver/pkg/apis/audit/v1/types.go`, `pkg/audit/format.go`.

mod cut;

use std::{collections::BTreeMap, fmt::Write, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Value, json, value::RawValue};

use super::rules::{AuditLevel, AuditStage, AuditTarget};
use crate::{identity::Identity, status::Status};

/// An event. Fields are in Kubernetes' order; what is empty is left out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// What the policy says of the request.
    pub level: AuditLevel,
    /// Of the request; also in its answer's header `Audit-ID`.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// When it was made.
    pub stage: AuditStage,
    /// Path and query as they were sent.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Kubernetes' verb, or the method in lower case.
    pub verb: String,
    /// Who was authenticated; empty where nobody was.
    pub user: AuditUser,
    /// As whom the request was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<AuditUser>,
    /// Where it comes from, the nearest last.
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<IpAddr>,
    /// What the client says that it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// Of a resource, what it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    /// How it ended; `None` as long as that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<ResponseStatus>,
    /// What was sent, from the level `Request` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Arc<RawValue>>,
    /// What was answered, at the level `RequestResponse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Arc<RawValue>>,
    /// When the request came.
    #[serde(serialize_with = "micro_time")]
    pub request_received_timestamp: Timestamp,
    /// When the event was made.
    #[serde(serialize_with = "micro_time")]
    pub stage_timestamp: Timestamp,
    /// What authorisation and admission note.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// `UserInfo` of an event.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AuditUser {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

/// The object of a request.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// The plural.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Of the path, or of what was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Of the path, or of what was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of what was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Empty for the core group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// `v1`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Of what was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// `status`, `log`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// What an event has of the answer's `Status`: of an object the code alone.
#[derive(Clone, Debug, Serialize)]
pub struct ResponseStatus {
    metadata: Value,
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
    #[serde(skip_serializing_if = "is_zero")]
    code: u16,
}

// Serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(code: &u16) -> bool {
    *code == 0
}

/// `MicroTime` of Kubernetes: six digits, always.
fn micro_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

/// What the least event takes, its annotations included.
const LEAST: usize = 2048;
/// What a text in a list takes beside its characters.
const OVERHEAD: usize = 24;

/// The longest `User-Agent` that is recorded whole.
const LONGEST_USER_AGENT: usize = 1024;

/// A `User-Agent` as it is recorded.
pub fn user_agent(sent: &str) -> String {
    match sent.len() > LONGEST_USER_AGENT {
        true => format!("{}...TRUNCATED", &sent[..sent.floor_char_boundary(LONGEST_USER_AGENT)]),
        false => sent.to_owned(),
    }
}

impl From<&Identity> for AuditUser {
    fn from(identity: &Identity) -> Self {
        let Identity { name, groups, uid, extra } = identity.clone();
        Self { username: name, uid, groups, extra }
    }
}

impl AuditUser {
    /// Empty where nobody was authenticated.
    pub fn name(&self) -> &str {
        &self.username
    }
}

impl ObjectReference {
    /// Of a request about a resource.
    pub fn of(target: &AuditTarget<'_>) -> Option<Self> {
        let AuditTarget::Resource { group, version, resource, subresource, namespace, name } = *target else {
            return None;
        };
        Some(Self {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            api_group: group.to_owned(),
            api_version: version.to_owned(),
            subresource: subresource.to_owned(),
            ..Self::default()
        })
    }

    /// Takes from an object that was sent what its request did not say.
    pub fn complete(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        let fields = [
            (&mut self.namespace, "namespace"),
            (&mut self.name, "name"),
            (&mut self.uid, "uid"),
            (&mut self.resource_version, "resourceVersion"),
        ];
        for (field, name) in fields {
            if let (true, Some(text)) = (field.is_empty(), metadata[name].as_str()) {
                text.clone_into(field);
            }
        }
    }
}

impl ResponseStatus {
    /// Of an answer that is no `Status`.
    pub fn of_code(code: u16) -> Self {
        let text = String::new;
        Self { metadata: json!({}), status: text(), message: text(), reason: text(), details: Value::Null, code }
    }

    /// Of a refusal.
    pub fn of_refusal(refusal: &Status) -> Self {
        Self {
            status: "Failure".to_owned(),
            message: refusal.message.clone(),
            reason: refusal.reason.to_owned(),
            details: refusal.details.clone().unwrap_or_default(),
            ..Self::of_code(refusal.code)
        }
    }

    /// Of an answer that is this `Status`, with this code.
    pub fn of_status(status: &Value, code: u16) -> Self {
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let (message, reason, details) = (text("message"), text("reason"), status["details"].clone());
        Self { status: text("status"), message, reason, details, ..Self::of_code(code) }
    }

    /// Of a request whose client went away before it was answered.
    pub fn closed_early() -> Self {
        let message = "Connection closed early".to_owned();
        Self { status: "Success".to_owned(), message, ..Self::of_code(200) }
    }

    /// Of a request whose handler panicked.
    pub fn of_panic(why: &str) -> Self {
        Self {
            status: "Failure".to_owned(),
            message: format!("APIServer panic'd: {why}"),
            reason: "InternalError".to_owned(),
            ..Self::of_code(500)
        }
    }

    /// The same with the code that was sent.
    pub fn set_code(&mut self, code: u16) {
        self.code = code;
    }
}

impl AuditEvent {
    /// JSON without `kind` and `apiVersion`: as an item of an `EventList`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.text_bytes());
        self.write_json(&mut text);
        text.shrink_to_fit();
        text
    }

    /// Appends the same.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("its keys are text, and nothing in it fails to be written");
    }

    /// How many bytes its text has, about; it rarely has more.
    pub fn text_bytes(&self) -> usize {
        self.fact_bytes().saturating_add(self.added_bytes())
    }

    /// Bytes of the objects in it.
    pub fn object_bytes(&self) -> usize {
        let objects = [&self.request_object, &self.response_object];
        objects.into_iter().flatten().map(|object| object.get().len()).fold(0, usize::saturating_add)
    }

    /// Bytes of the objects and annotations in it, and of what is said of the answer.
    pub fn added_bytes(&self) -> usize {
        let notes = self.annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let message = self.response_status.as_ref().map_or(0, |status| status.message.len());
        self.object_bytes().saturating_add(notes).saturating_add(message)
    }

    /// Bytes of memory that it takes without objects, about, until its request has ended: as it is known, and as it is
    /// written.
    pub fn fact_bytes(&self) -> usize {
        let AuditUser { username, uid, groups, extra } = &self.user;
        let of_list = |list: &[String]| list.iter().map(|text| text.len().saturating_add(OVERHEAD)).sum::<usize>();
        let of_extra = extra.iter().map(|(name, list)| name.len().saturating_add(of_list(list)));
        let of_user = username.len() + uid.len() + of_list(groups) + of_extra.sum::<usize>();
        // What it is about stands in the path, too.
        let of_path = self.request_uri.len().saturating_mul(2);
        let of_client = self.user_agent.len() + self.source_ips.len().saturating_mul(OVERHEAD);
        [of_user, of_path, of_client].into_iter().fold(LEAST, |sum, part| sum.saturating_add(part.saturating_mul(2)))
    }

    /// One line, of the format `legacy`.
    pub fn to_line(&self) -> String {
        let quoted = |list: &[String]| list.iter().map(|text| go(text)).collect::<Vec<_>>().join(",");
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let (mut user, mut groups) = ("<none>".to_owned(), "<none>".to_owned());
        if !self.user.username.is_empty() {
            user.clone_from(&self.user.username);
            groups = or(&quoted(&self.user.groups), "<none>");
        }
        let (mut acting, mut acting_groups) = ("<self>".to_owned(), "<lookup>".to_owned());
        if let Some(impersonated) = &self.impersonated_user {
            acting.clone_from(&impersonated.username);
            acting_groups = quoted(&impersonated.groups);
        }
        let namespace = self.object_ref.as_ref().map_or("", |object| &object.namespace);
        let response = self.response_status.as_ref().map_or("<deferred>".to_owned(), |status| status.code.to_string());
        let ip = self.source_ips.first().map_or("<unknown>".to_owned(), IpAddr::to_string);
        let fields = [
            ("id", go(&self.audit_id)),
            ("stage", go(self.stage.as_str())),
            ("ip", go(&ip)),
            ("method", go(&self.verb)),
            ("user", go(&user)),
            ("groups", go(&groups)),
            ("as", go(&acting)),
            ("asgroups", go(&acting_groups)),
            ("user-agent", go(&self.user_agent)),
            ("namespace", go(&or(namespace, "<none>"))),
            ("uri", go(&self.request_uri)),
            ("response", go(&response)),
        ];
        let mut line = format!("{} AUDIT:", self.request_received_timestamp);
        for (name, value) in fields {
            write!(line, " {name}={value}").expect("a text takes all that is written");
        }
        line
    }
}

/// A text in quotes, as JSON has it: on one line, whatever is in it.
fn go(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An event of joe's request for a pod.
    pub fn event(stage: AuditStage) -> AuditEvent {
        let time: Timestamp = "2026-01-02T03:04:05.000007Z".parse().unwrap();
        let joe = Identity { name: "joe".into(), groups: vec!["dev".into()], ..Identity::default() };
        AuditEvent {
            level: AuditLevel::Metadata,
            audit_id: "a-1".into(),
            stage,
            request_uri: "/api/v1/namespaces/a/pods/b?x=1".into(),
            verb: "get".into(),
            user: (&joe).into(),
            impersonated_user: None,
            source_ips: vec![[10, 0, 0, 1].into()],
            user_agent: "kubectl/v1".into(),
            object_ref: Some(ObjectReference {
                resource: "pods".into(),
                namespace: "a".into(),
                name: "b".into(),
                api_version: "v1".into(),
                ..ObjectReference::default()
            }),
            response_status: Some(ResponseStatus::of_code(200)),
            request_object: None,
            response_object: None,
            request_received_timestamp: time,
            stage_timestamp: time,
            annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        }
    }

    #[test]
    fn an_event_is_written_as_kubernetes_writes_it() {
        assert_eq!(
            String::from_utf8(event(AuditStage::ResponseComplete).to_json()).unwrap(),
            r#"{"level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/pods/b?x=1","verb":"get","user":{"username":"joe","groups":["dev"]},"sourceIPs":["10.0.0.1"],"userAgent":"kubectl/v1","objectRef":{"resource":"pods","namespace":"a","name":"b","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-01-02T03:04:05.000007Z","stageTimestamp":"2026-01-02T03:04:05.000007Z","annotations":{"k":"v"}}"#
        );
    }

    #[test]
    fn the_legacy_line_is_that_of_kubernetes() {
        let mut event = event(AuditStage::RequestReceived);
        event.response_status = None;
        assert_eq!(
            event.to_line(),
            "2026-01-02T03:04:05.000007Z AUDIT: id=\"a-1\" stage=\"RequestReceived\" ip=\"10.0.0.1\" method=\"get\" \
             user=\"joe\" groups=\"\\\"dev\\\"\" as=\"<self>\" asgroups=\"<lookup>\" user-agent=\"kubectl/v1\" \
             namespace=\"a\" uri=\"/api/v1/namespaces/a/pods/b?x=1\" response=\"<deferred>\""
        );
        event.user_agent = "two\nlines".into();
        assert_eq!(event.to_line().lines().count(), 1);
    }

    #[test]
    fn a_long_user_agent_is_cut() {
        let cut = user_agent(&"x".repeat(2000));
        assert_eq!((cut.len(), cut.ends_with("x...TRUNCATED")), (1024 + 12, true));
        assert_eq!(user_agent("kubectl"), "kubectl");
    }
}
