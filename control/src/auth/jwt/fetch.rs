//! Fetches JSON documents of token issuers: over TLS alone, with a limit of time and size.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use serde_json::Value;

use crate::webhook::{self, Dial, WebhookTarget};

/// How long an answer may take, redirections included. Source: the client of `oidc.go`.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// The largest document: issuers have a few keys.
const MOST: usize = 1 << 20;
/// As many as Go follows.
const REDIRECTIONS: usize = 10;

/// Why there is no document.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// What is no `https://` with a host is not fetched.
    #[error("Get {0:?}: unsupported protocol scheme")]
    Url(String),
    /// The certificates that are trusted cannot be used.
    #[error(transparent)]
    Trust(#[from] webhook::ConfigError),
    /// There was no answer in time.
    #[error("Get {0:?}: context deadline exceeded")]
    Timeout(String),
    /// There was no answer: no address, no connection, no trust.
    #[error("Get {url:?}: {why}")]
    Request {
        /// What was asked for.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// It sends from one place to the next.
    #[error("Get {0:?}: stopped after 10 redirects")]
    Redirections(String),
    /// The answer is not 200.
    #[error("{0}")]
    Refused(StatusCode),
    /// The answer is no JSON.
    #[error("the answer is not JSON")]
    Json,
}

/// Fetches the documents of one issuer.
#[derive(Clone, Debug)]
pub struct IssuerFetch {
    /// PEM; empty for the authorities that the system trusts.
    authorities: Arc<str>,
    dial: Arc<dyn Dial>,
}

impl IssuerFetch {
    /// Whose certificates `authorities` signed.
    pub fn new(authorities: &str, dial: Arc<dyn Dial>) -> Self {
        Self { authorities: authorities.into(), dial }
    }

    /// The document at a URL.
    pub async fn get(&self, url: &str) -> Result<Value, FetchError> {
        let fetched = tokio::time::timeout(ANSWERED_WITHIN, self.follow(url)).await;
        let text = fetched.unwrap_or_else(|_| Err(FetchError::Timeout(url.to_owned())))?;
        serde_json::from_slice(&text).map_err(|_| FetchError::Json)
    }

    async fn follow(&self, url: &str) -> Result<Bytes, FetchError> {
        let mut at: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
        for _ in 0..REDIRECTIONS {
            let response = self.send(&at).await?;
            let code = response.status();
            if code == StatusCode::OK {
                let text = Limited::new(response.into_body(), MOST).collect().await;
                let failed = |why: String| FetchError::Request { url: at.to_string(), why };
                return Ok(text.map_err(|error| failed(webhook::cause(&*error)))?.to_bytes());
            }
            let next = response.headers().get(header::LOCATION).filter(|_| code.is_redirection());
            let next = next.and_then(|next| redirection(&at, next.to_str().ok()?));
            at = next.ok_or(FetchError::Refused(code))?;
        }
        Err(FetchError::Redirections(url.to_owned()))
    }

    /// A connection for each request: there are few, and they go to several hosts.
    async fn send(&self, url: &Uri) -> Result<http::Response<hyper::body::Incoming>, FetchError> {
        let shown = || url.to_string();
        let host = url.host().filter(|_| url.scheme_str() == Some("https")).ok_or_else(|| FetchError::Url(shown()))?;
        let target = WebhookTarget::Host { host: host.trim_matches(['[', ']']).to_owned(), port: url.port_u16() };
        let tls = webhook::tls(self.authorities.as_bytes())?;
        let client = webhook::pooled::<Empty<Bytes>>(webhook::connector(&target, self.dial.clone(), tls)?);
        let failed = |why: String| FetchError::Request { url: shown(), why };
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("fairlead/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| failed(error.to_string()))?;
        client.request(request).await.map_err(|error| failed(webhook::cause(&error)))
    }
}

/// Where a `Location` leads: a URL, or a path on the same host.
fn redirection(from: &Uri, location: &str) -> Option<Uri> {
    match location.starts_with('/') && !location.starts_with("//") {
        true => format!("https://{}{location}", from.authority()?).parse().ok(),
        false => location.parse().ok(),
    }
}
