//! Sends a request to one server and reads its answer.

use std::time::Duration;

use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::Value;

use crate::{
    kit::Result,
    request::{Memory, Request},
};

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

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends `request` and keeps in `memory` what later requests repeat.
pub async fn exchange(client: &Client, request: &Request, memory: &mut Memory) -> Result<Answer> {
    let mut builder = http::Request::builder().method(request.method).uri(request.url(memory));
    builder = builder.header("Accept", request.accept).header("User-Agent", "differential");
    let bytes = request.bytes(memory);
    if !bytes.is_empty() {
        builder = builder.header("Content-Type", request.content_type);
    }
    let request_bytes = builder.body(Body::from(bytes))?;
    let asked = async {
        let (head, body) = client.send(request_bytes).await?.into_parts();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head, body.collect().await?.to_bytes()))
    };
    let Ok(answered) = tokio::time::timeout(PATIENCE, asked).await else {
        let body = format!("no answer in {PATIENCE:?}").into();
        return Ok(Answer { code: 0, content_type: String::new(), warnings: Vec::new(), body });
    };
    let (head, bytes) = answered?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // What YAML says counts, not how it is laid out.
    let is_yaml = head.headers.get("content-type").is_some_and(|value| value == "application/yaml");
    let read = if is_yaml { serde_yaml::from_str(&text_of(&bytes)).ok() } else { serde_json::from_slice(&bytes).ok() };
    let body = read.unwrap_or_else(|| Value::String(text_of(&bytes)));
    let answer = Answer {
        code: head.status.as_u16(),
        content_type: head.headers.get("content-type").map(text).unwrap_or_default(),
        warnings: head.headers.get_all("warning").iter().map(text).collect(),
        body,
    };
    remember(request, &answer, memory);
    Ok(answer)
}

fn remember(request: &Request, answer: &Answer, memory: &mut Memory) {
    if !answer.accepted() {
        return;
    }
    if let Some(token) = answer.body["metadata"]["continue"].as_str() {
        token.clone_into(&mut memory.continue_token);
    }
    let kept = request.persists() || request.verb == "get";
    let is_object = answer.body["metadata"]["uid"].is_string() && answer.body["kind"] != "PartialObjectMetadata";
    let is_main = memory.last.as_ref().is_none_or(|last| last["kind"] == answer.body["kind"]);
    if kept && is_object && is_main {
        memory.last = Some(answer.body.clone());
    }
}
