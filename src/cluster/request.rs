//! One request to the API and its answer: JSON in, JSON out, refusals as [`ApiError`], warnings on standard error.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use anyhow::Context;
use futures::{AsyncBufRead, TryStreamExt};
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

use super::{ApiError, Representation, Resources, frame::send_for_tables};
use crate::{hint::ErrorWithHint, printable::printable};

/// `Accept` for the server's Table form, with plain JSON as the fallback.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const JSON: &str = "application/json";

/// How this client names itself.
const USER_AGENT: &str = concat!("fairlead/", env!("CARGO_PKG_VERSION"));

/// The patches that Kubernetes knows for any object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Strategic,
    Merge,
    Json,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    fn content_type(self) -> &'static str {
        match self {
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// One cluster as one user sees it.
pub struct Cluster {
    client: kube::Client,
    namespace: String,
    namespace_given: bool,
    server: String,
    ca_certificate: Option<Vec<u8>>,
    resources: tokio::sync::OnceCell<Resources>,
    /// Warnings already shown: a server repeats them with every request.
    warned: Arc<Warned>,
}

/// Texts of warnings that the user has seen.
type Warned = Mutex<BTreeSet<String>>;

impl Cluster {
    /// The cluster that `config` leads to; `namespace` is the one that the command line names.
    pub fn new(config: kube::Config, namespace: Option<String>) -> Result<Self, kube::Error> {
        Ok(Self {
            namespace_given: namespace.is_some(),
            namespace: namespace.unwrap_or_else(|| config.default_namespace.clone()),
            server: config.cluster_url.to_string(),
            ca_certificate: config.root_cert.as_ref().and_then(|certificates| certificates.first().cloned()),
            client: kube::Client::try_from(config)?,
            resources: tokio::sync::OnceCell::new(),
            warned: Arc::default(),
        })
    }

    /// A cluster behind `client`, which serves `resources`.
    #[cfg(test)]
    pub fn for_tests(client: kube::Client, namespace: &str, resources: Resources) -> Self {
        Self {
            namespace_given: false,
            namespace: namespace.to_owned(),
            server: "https://fake".to_owned(),
            ca_certificate: None,
            client,
            resources: tokio::sync::OnceCell::new_with(Some(resources)),
            warned: Arc::default(),
        }
    }

    /// A client whose every request asks for this representation.
    pub fn client_for(&self, representation: Representation) -> kube::Client {
        let (client, warned) = (self.client.clone(), self.warned.clone());
        let service = tower::service_fn(move |request| {
            let (client, warned) = (client.clone(), warned.clone());
            async move {
                let response = match representation {
                    Representation::Object => client.send(request).await?,
                    Representation::Table => send_for_tables(client, request).await?,
                };
                show_warnings(&warned, &response);
                Ok::<_, kube::Error>(response)
            }
        });
        kube::Client::new(service, self.namespace.clone())
    }

    /// The namespace of the flags, else of the context, else `default`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the user named the namespace on the command line.
    pub fn namespace_given(&self) -> bool {
        self.namespace_given
    }

    /// URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The certificate (DER) of the authority that the kubeconfig trusts.
    pub fn ca_certificate(&self) -> Option<&[u8]> {
        self.ca_certificate.as_deref()
    }

    /// What the cluster serves; asked for once.
    pub async fn resources(&self) -> anyhow::Result<&Resources> {
        self.resources.get_or_try_init(|| Resources::discover(self)).await
    }

    /// The answer to GET, as JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.get_as(path, JSON).await
    }

    /// The answer to GET in the representation that `accept` asks for.
    pub async fn get_as(&self, path: &str, accept: &str) -> anyhow::Result<Value> {
        self.exchange(Method::GET, path, accept, None).await
    }

    /// Creates `body` in the collection `path`.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.exchange(Method::POST, path, JSON, Some((JSON, body))).await
    }

    /// Changes the object at `path`.
    pub async fn patch(&self, path: &str, patch: PatchType, body: &Value) -> anyhow::Result<Value> {
        self.exchange(Method::PATCH, path, JSON, Some((patch.content_type(), body))).await
    }

    /// Deletes the object at `path` with these DeleteOptions.
    pub async fn delete(&self, path: &str, options: &Value) -> anyhow::Result<Value> {
        self.exchange(Method::DELETE, path, JSON, Some((JSON, options))).await
    }

    /// The answer's body as it comes: logs, watches.
    pub async fn stream(&self, path: &str, accept: &str) -> anyhow::Result<impl AsyncBufRead + Unpin + use<>> {
        let response = self.send(Method::GET, path, accept, None).await?;
        Ok(response.into_body().into_data_stream().map_err(std::io::Error::other).into_async_read())
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, &Value)>,
    ) -> anyhow::Result<Value> {
        let response = self.send(method, path, accept, body).await?;
        let bytes = response.into_body().collect_bytes().await.context("the answer broke off")?;
        serde_json::from_slice(&bytes).with_context(|| format!("the answer to {path} is not JSON"))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, &Value)>,
    ) -> anyhow::Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        let mut content = Vec::new();
        if let Some((content_type, value)) = body {
            request = request.header(header::CONTENT_TYPE, content_type);
            content = serde_json::to_vec(value).context("cannot encode the request")?;
        }
        let request = request.body(Body::from(content)).context("cannot form the request")?;
        let response = self.answer(request).await?;
        let code = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let bytes = response.into_body().collect_bytes().await.context("the answer broke off")?;
        Err(ApiError::from_body(code, &bytes).into())
    }

    /// The answer to a request, whatever it is.
    pub(super) async fn answer(&self, mut request: Request<Body>) -> anyhow::Result<Response<Body>> {
        request.headers_mut().insert(header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT));
        let response = self.client.send(request).await.map_err(|error| self.failed(error))?;
        show_warnings(&self.warned, &response);
        Ok(response)
    }

    /// What a request that got no proper answer means to the user.
    pub fn failed(&self, error: kube::Error) -> anyhow::Error {
        if let kube::Error::Api(status) = &error {
            return ApiError::from(&**status).into();
        }
        let hint =
            format!("is the cluster up? `fairlead up` starts one on this machine; this client asked {}", self.server);
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        ErrorWithHint::new(format!("the server {} does not answer: {cause}", self.server), hint).into()
    }
}

/// `Warning: 299 - "text"` (RFC 7234, section 5.5), once each.
fn show_warnings(warned: &Warned, response: &Response<Body>) {
    for value in response.headers().get_all(header::WARNING) {
        let Some(text) = value.to_str().ok().and_then(warning_text) else { continue };
        let new = warned.lock().is_ok_and(|mut warned| warned.insert(text.clone()));
        if new {
            eprintln!("Warning: {}", printable(&text));
        }
    }
}

/// The quoted text of one `Warning` header value, its escapes resolved.
fn warning_text(value: &str) -> Option<String> {
    let quoted = value.split_once('"')?.1;
    let mut text = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            '"' => return Some(text),
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_warning_header_is_unquoted() {
        assert_eq!(warning_text(r#"299 - "use \"apps/v1\"""#).as_deref(), Some("use \"apps/v1\""));
        assert_eq!(warning_text("299 - none"), None);
    }
}
