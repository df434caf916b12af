//! A request, and what one server answered.

use std::time::Duration;

use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::Value;

use crate::{kit::Result, normalise::normalise};

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub content_type: String,
    /// `Warning` headers.
    pub warnings: Vec<String>,
    /// Text that is no JSON is a string.
    pub body: Value,
}

impl Answer {
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// One request, without who sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: &'static str,
    /// With the query.
    pub path: String,
    /// Null for none.
    pub body: Value,
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: Value::Null, headers: Vec::new() }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { body, ..Self::new("POST", path) }
    }

    pub fn put(path: impl Into<String>, body: Value) -> Self {
        Self { body, ..Self::new("PUT", path) }
    }

    /// A merge patch.
    pub fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { body, ..Self::new("PATCH", path) }
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new("DELETE", path)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As somebody else.
    pub fn acting_as(mut self, user: &str, groups: &[String]) -> Self {
        self = self.header("Impersonate-User", user);
        for group in groups {
            self = self.header("Impersonate-Group", group);
        }
        self
    }
}

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends `request`. Of what was accepted, the body of reviews alone is read: a watch may have no end.
pub async fn exchange(client: &Client, request: &Request) -> Result<Answer> {
    let mut builder = http::Request::builder().method(request.method).uri(&request.path);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let bytes = if request.body.is_null() { Vec::new() } else { serde_json::to_vec(&request.body)? };
    let names_type = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if !bytes.is_empty() && !names_type {
        let patch = "application/merge-patch+json";
        builder = builder.header("Content-Type", if request.method == "PATCH" { patch } else { "application/json" });
    }
    let sent = builder.body(Body::from(bytes))?;
    let asked = async {
        let (head, body) = client.send(sent).await?.into_parts();
        let is_long = request.path.contains("watch=") || head.status.as_u16() == 101;
        let bytes = match head.status.is_success() && is_long {
            true => Default::default(),
            false => body.collect().await?.to_bytes(),
        };
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head, bytes))
    };
    let Ok(answered) = tokio::time::timeout(PATIENCE, asked).await else {
        let body = format!("no answer in {PATIENCE:?}").into();
        return Ok(Answer { code: 0, content_type: String::new(), warnings: Vec::new(), body });
    };
    let (head, bytes) = answered?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
    Ok(Answer {
        code: head.status.as_u16(),
        content_type: head.headers.get("content-type").map(text).unwrap_or_default(),
        warnings: head.headers.get_all("warning").iter().map(text).collect(),
        body,
    })
}

/// What is compared of an answer: all of a refusal, the status of a review, and the code alone of anything else that
/// was accepted.
pub fn compared(answer: &Answer) -> Answer {
    let mut answer = normalise(answer.clone());
    // Each server has issued a certificate of its own to the user.
    let place = "/status/userInfo/extra/authentication.kubernetes.io~1credential-id/0";
    if let Some(shown) = answer.body.pointer_mut(place)
        && shown.as_str().is_some_and(|credential| credential.starts_with("X509SHA256="))
    {
        *shown = "X509SHA256=<hash>".into();
    }
    let is_review = answer.body["kind"].as_str().is_some_and(|kind| kind.ends_with("Review"));
    if answer.accepted() {
        answer.body = if is_review { answer.body["status"].take() } else { Value::Null };
        if !is_review {
            answer.content_type.clear();
        }
        answer.warnings.clear();
    }
    rules_in_order(answer)
}

/// The reference lists bindings in an order that is another each time; that of the rules of one role is left in
/// kubectl's hands, which sorts them.
fn rules_in_order(mut answer: Answer) -> Answer {
    for list in ["resourceRules", "nonResourceRules"] {
        if let Some(rules) = answer.body.get_mut(list).and_then(Value::as_array_mut) {
            rules.sort_by_key(Value::to_string);
        }
    }
    answer
}
