//! Events as an `EventList` for a server that a kubeconfig names, sent again where that fails.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/webhook`.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Limited};
use kube::{
    client::Body,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    backend::{AuditBackend, AuditWriteError},
    event::AuditEvent,
    options::{AuditWebhookOptions, SENT_AT_A_TIME},
};

/// Why a webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSetupError {
    /// Its kubeconfig cannot be read, or names no server.
    #[error("cannot use the audit webhook's kubeconfig {}", path.display())]
    Kubeconfig {
        /// What `--audit-webhook-config-file` names.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// Its certificates or credentials cannot be used.
    #[error("cannot use the credentials in the audit webhook's kubeconfig {}", path.display())]
    Client {
        /// What `--audit-webhook-config-file` names.
        path: PathBuf,
        /// What is wrong with them.
        source: Box<kube::Error>,
    },
}

/// A server that collects events.
pub struct AuditWebhook {
    client: kube::Client,
    /// Path and query, as the kubeconfig has them.
    path: String,
    initial_backoff: Duration,
    /// Bounds the requests that are under way. What waits to be sent again holds up nothing.
    sending: Semaphore,
    /// The service stops: nothing waits any more before it is tried again, for the last time.
    hurry: CancellationToken,
}

/// How long an answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// How often events are sent at most.
const ATTEMPTS: u32 = 5;
/// By how much each pause is longer than the one before.
const FACTOR: f64 = 1.5;
/// Up to which part a pause is longer than it has to be.
const JITTER: f64 = 0.2;
/// Nothing is done with the answer: so much of it is read at most, so that its connection can be used again.
const MOST_OF_ANSWER: usize = 64 << 10;

impl AuditWebhook {
    /// Reads the kubeconfig. Nothing is sent yet.
    ///
    /// # Errors
    /// [`WebhookSetupError`].
    pub async fn new(options: &AuditWebhookOptions, hurry: CancellationToken) -> Result<Self, WebhookSetupError> {
        let path = || options.config_file.clone();
        let unusable = |source| WebhookSetupError::Kubeconfig { path: path(), source: Box::new(source) };
        let kubeconfig = Kubeconfig::read_from(&options.config_file).map_err(unusable)?;
        let chosen = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &chosen).await.map_err(unusable)?;
        config.default_retry = false;
        // The client would end a path with a slash.
        let url = std::mem::take(&mut config.cluster_url);
        let target = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        config.cluster_url = origin(&url);
        let client = kube::Client::try_from(config)
            .map_err(|source| WebhookSetupError::Client { path: path(), source: Box::new(source) })?;
        let (initial_backoff, sending) = (options.initial_backoff, Semaphore::new(SENT_AT_A_TIME));
        Ok(Self { client, path: target, initial_backoff, sending, hurry })
    }

    async fn post(&self, events: &[Bytes]) -> Result<(), AuditWriteError> {
        let _place = self.sending.acquire().await.map_err(|_| AuditWriteError::ShutDown)?;
        // Made for each attempt: what waits to be sent again takes no memory but that of its events.
        let list = event_list(events);
        tokio::time::timeout(ANSWERED_WITHIN, self.send(list)).await.unwrap_or(Err(AuditWriteError::Timeout))
    }

    async fn send(&self, list: Bytes) -> Result<(), AuditWriteError> {
        let request = Request::post(&self.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, concat!("fairlead/", env!("CARGO_PKG_VERSION")))
            .body(Body::from(list))
            .map_err(|error| AuditWriteError::Webhook(Box::new(kube::Error::HttpError(error))))?;
        let answer = self.client.send(request).await.map_err(|error| AuditWriteError::Webhook(Box::new(error)))?;
        let code = answer.status();
        if let Err(error) = Limited::new(answer.into_body(), MOST_OF_ANSWER).collect().await {
            tracing::debug!(error, "the audit webhook's answer broke off");
        }
        if code.is_success() { Ok(()) } else { Err(AuditWriteError::Answer(code.as_u16())) }
    }
}

#[async_trait::async_trait]
impl AuditBackend for AuditWebhook {
    fn plugin(&self) -> &'static str {
        "webhook"
    }

    fn encode(&self, event: &AuditEvent) -> Bytes {
        event.to_json().into()
    }

    async fn write(&self, events: &[Bytes]) -> Result<(), AuditWriteError> {
        let mut pause = self.initial_backoff;
        for attempt in 1.. {
            // Each is tried once more after the stop has begun.
            let is_last = attempt >= ATTEMPTS || self.hurry.is_cancelled();
            let error = match self.post(events).await {
                Ok(()) => break,
                Err(error) if is_last => return Err(error),
                Err(error) => error,
            };
            tracing::debug!(attempt, error = &error as &dyn std::error::Error, "audit events are sent again");
            tokio::select! {
                () = tokio::time::sleep(times(pause, 1.0 + JITTER * rand::random::<f64>())) => {}
                () = self.hurry.cancelled() => {}
            }
            pause = times(pause, FACTOR);
        }
        Ok(())
    }
}

fn times(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

fn origin(url: &Uri) -> Uri {
    let (scheme, authority) = (url.scheme_str().unwrap_or("https"), url.authority().map_or("", |host| host.as_str()));
    format!("{scheme}://{authority}/").parse().unwrap_or_else(|_| url.clone())
}

/// The text of an `EventList`.
fn event_list(events: &[Bytes]) -> Bytes {
    const START: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    let mut text = START.to_vec();
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(event);
    }
    text.extend_from_slice(b"]}");
    text.into()
}
