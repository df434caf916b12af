//! One request as it is generated: with placeholders for what each server alone knows.

use serde_json::Value;

use crate::edit::Edit;

/// A request to both servers.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub accept: &'static str,
    pub content_type: &'static str,
    pub body: Body,
    /// The verb that the report counts it under: `create`, `json patch`, `list`.
    pub verb: &'static str,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Body {
    Empty,
    Json(Value),
    Text(String),
    /// The object as the server last answered it, changed.
    Last(Vec<Edit>),
}

/// What each server said before and later requests repeat; written `${rv}`, `${uid}`, `${continue}` in requests.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub last: Option<Value>,
    pub continue_token: String,
}

pub const JSON: &str = "application/json";

impl Request {
    pub fn new(verb: &'static str, method: &'static str, path: impl Into<String>) -> Self {
        let (query, body) = (Vec::new(), Body::Empty);
        Self { method, path: path.into(), query, accept: JSON, content_type: JSON, body, verb }
    }

    pub fn json(mut self, body: Value) -> Self {
        self.body = Body::Json(body);
        self
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub fn query(mut self, key: &str, value: impl Into<String>) -> Self {
        self.query.push((key.to_owned(), value.into()));
        self
    }

    pub fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    pub fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    /// Whether what it writes is kept, if it is accepted.
    pub fn persists(&self) -> bool {
        self.method != "GET" && !self.query.iter().any(|(key, value)| key == "dryRun" && value == "All")
    }

    /// Path and query for one server.
    pub fn url(&self, memory: &Memory) -> String {
        let mut url = memory.fill(&self.path);
        for (at, (key, value)) in self.query.iter().enumerate() {
            let value = memory.fill(value);
            let value = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
            url.push_str(&format!("{}{key}={value}", if at == 0 { '?' } else { '&' }));
        }
        url
    }

    /// The body for one server.
    pub fn bytes(&self, memory: &Memory) -> Vec<u8> {
        match &self.body {
            Body::Empty => Vec::new(),
            Body::Json(value) => memory.fill(&value.to_string()).into_bytes(),
            Body::Text(text) => memory.fill(text).into_bytes(),
            Body::Last(edits) => {
                let mut object = memory.last.clone().unwrap_or_default();
                for edit in edits {
                    edit.apply(&mut object);
                }
                memory.fill(&object.to_string()).into_bytes()
            }
        }
    }
}

impl Memory {
    fn fill(&self, text: &str) -> String {
        let known = |field: &str| self.last.as_ref().and_then(|last| last["metadata"][field].as_str()).unwrap_or("");
        text.replace("${rv}", known("resourceVersion"))
            .replace("${uid}", known("uid"))
            .replace("${continue}", &self.continue_token)
    }
}
