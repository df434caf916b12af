//! Calls of a server that a kubeconfig names, as the flags `--…-webhook-config-file` have them: where it is, whom it
//! must prove to be, and how this service proves who it is.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Limited};
use kube::{
    client::Body,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde_json::Value;

use super::{CallError, MAX_ANSWER, cause, refusal};

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigSetupError {
    /// It cannot be read, or names no server.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// Its certificates or credentials cannot be used.
    #[error("cannot use the credentials in the kubeconfig {path}")]
    Client {
        /// The file.
        path: String,
        /// What is wrong with them.
        source: Box<kube::Error>,
    },
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct KubeconfigCallError {
    /// In the words of Kubernetes.
    pub error: CallError,
    /// Whether it may pass soon, as `DefaultShouldRetry` of Kubernetes has it.
    pub is_transient: bool,
}

/// Calls the server of a kubeconfig. Clones share the connections.
#[derive(Clone)]
pub struct KubeconfigClient {
    client: kube::Client,
    /// Of the server, without the path.
    origin: Arc<str>,
    /// Path and query, as the kubeconfig has them.
    path: Arc<str>,
}

impl KubeconfigClient {
    /// Reads the kubeconfig. Nothing is sent yet.
    pub async fn read(file: &Path) -> Result<Self, KubeconfigSetupError> {
        let path = || file.display().to_string();
        let unusable = |source| KubeconfigSetupError::Kubeconfig { path: path(), source: Box::new(source) };
        let kubeconfig = Kubeconfig::read_from(file).map_err(unusable)?;
        let chosen = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &chosen).await.map_err(unusable)?;
        config.default_retry = false;
        // The client would end a path with a slash.
        let url = std::mem::take(&mut config.cluster_url);
        let target = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let (scheme, authority) =
            (url.scheme_str().unwrap_or("https"), url.authority().map_or("", |host| host.as_str()));
        let origin = format!("{scheme}://{authority}");
        config.cluster_url = format!("{origin}/").parse().unwrap_or_else(|_: http::uri::InvalidUri| Uri::default());
        let client = kube::Client::try_from(config)
            .map_err(|source| KubeconfigSetupError::Client { path: path(), source: Box::new(source) })?;
        Ok(Self { client, origin: origin.into(), path: target.into() })
    }

    /// Posts `body`; answers with the JSON that comes back within `timeout`.
    pub async fn post(&self, body: Bytes, timeout: Duration) -> Result<Value, KubeconfigCallError> {
        match tokio::time::timeout(timeout, self.send(body)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout { url: self.url() }.into()),
        }
    }

    fn url(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }

    async fn send(&self, body: Bytes) -> Result<Value, KubeconfigCallError> {
        let failed = |why: String| CallError::Request { url: self.url(), why };
        let request = Request::post(&*self.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, concat!("fairlead/", env!("CARGO_PKG_VERSION")))
            .body(Body::from(body.to_vec()))
            .map_err(|error| failed(error.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| failed(cause(&error)))?;
        let code = response.status();
        let says_when = response.headers().contains_key(header::RETRY_AFTER);
        let text = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let text = text.map_err(|error| failed(cause(&*error)))?.to_bytes();
        if code.is_success() {
            return Ok(serde_json::from_slice(&text).map_err(|source| CallError::Answer { source })?);
        }
        let code = code.as_u16();
        let error = CallError::Refused { code, message: refusal(code, &text) };
        Err(KubeconfigCallError { error, is_transient: says_when || matches!(code, 429 | 500 | 504) })
    }
}

impl From<CallError> for KubeconfigCallError {
    fn from(error: CallError) -> Self {
        Self { error, is_transient: false }
    }
}

impl std::fmt::Debug for KubeconfigClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeconfigClient").field("url", &self.url()).finish_non_exhaustive()
    }
}
