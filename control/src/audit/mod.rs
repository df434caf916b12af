//! The audit log: who asked what of the API and how it ended, as `audit.k8s.io/v1` has it.
//!
//! ```text
//!  policy file ──policy──▶ AuditRules
//!  request ──▶ Audit::begin ──rules──▶ nothing │ AuditedRequest ──▶ AuditEvent per stage
//!                                                │ record: what handlers add (`current`)
//!  AuditEvent ──sink──▶ truncate ──▶ the queue of a backend ──batch──▶ log │ webhook
//! ```
//!
//! An *event* is what is written. A *record* is what is known of a request so far; the event of a *stage* is made of
//! it. The *level* says how much of a request is recorded. A *backend* is what events are written to.
//!
//! | file | what it knows |
//! |---|---|
//! | `options` | what the flags say |
//! | `policy` | the policy file, read and validated |
//! | `rules` | which rule is about a request (pure) |
//! | `event` | one event, as JSON and as a line |
//! | `record`, `current` | what is known of a request; the record of the request that a task handles |
//! | `audited_request` | a request from its first event to its last |
//! | `source_ips` | where a request comes from |
//! | `managed_fields` | the text of an answer without them |
//! | `memory`, `budget` | how much memory events take, and who waits for it |
//! | `sink`, `batch`, `truncate` | which backends get an event, who waits for that, and what is too large |
//! | `backend`, `log`, `rotation`, `retention`, `webhook` | the backends |
//! | `metrics` | `apiserver_audit_*` |
//!
//! Without a policy there is no [`Audit`], and a request costs one look at that.

mod audited_request;
mod backend;
mod batch;
mod budget;
pub mod current;
mod event;
mod log;
mod managed_fields;
mod memory;
mod metrics;
pub mod options;
pub mod policy;
mod record;
mod retention;
mod rotation;
mod rules;
mod sink;
mod source_ips;
#[cfg(test)]
pub mod tests;
mod truncate;
mod webhook;

use std::{collections::BTreeMap, fmt, io, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

pub use self::{
    audited_request::{AuditedRequest, OpenRequest},
    rules::{AuditAttributes, AuditTarget},
    source_ips::source_ips,
};
use self::{
    event::{AuditEvent, ObjectReference, user_agent},
    log::AuditLog,
    memory::{AuditMemory, MemoryLimits},
    metrics::AuditMetrics,
    options::{AuditMode, AuditOptions},
    policy::{AuditPolicy, AuditPolicyError},
    record::AuditRecord,
    rules::{AuditLevel, AuditRules, AuditStage},
    sink::AuditSink,
    webhook::{AuditWebhook, WebhookSetupError},
};
use crate::metrics::Scrape;

/// Why auditing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] AuditPolicyError),
    /// The log's file cannot be opened.
    #[error("cannot open the audit log")]
    Log(#[source] io::Error),
    /// The webhook's kubeconfig cannot be used.
    #[error(transparent)]
    Webhook(#[from] WebhookSetupError),
}

/// Audits requests. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    rules: Arc<AuditRules>,
    sink: Arc<AuditSink>,
    memory: Arc<AuditMemory>,
    metrics: Arc<AuditMetrics>,
}

/// What an event has of a request that no rule looks at.
pub struct RequestFacts<'a> {
    /// Also in the answer's header `Audit-ID`.
    pub audit_id: String,
    /// Path and query as they were sent.
    pub uri: &'a http::Uri,
    /// What the client says that it is.
    pub user_agent: &'a str,
    /// Where it comes from, the nearest last.
    pub source_ips: Vec<std::net::IpAddr>,
}

/// How long the last events may take to be written.
const FLUSHED_WITHIN: Duration = Duration::from_secs(10);

impl Audit {
    /// As the flags say; `None` where no policy is given, or nothing that events go to.
    ///
    /// # Errors
    /// [`AuditError`].
    pub async fn start(options: &AuditOptions) -> Result<Option<Self>, AuditError> {
        let AuditOptions { policy_file, log, webhook } = options;
        let has_backend = log.is_some() || webhook.is_some();
        let Some(policy) = policy_file else {
            if has_backend {
                tracing::warn!("nothing is audited: no --audit-policy-file says what");
            }
            return Ok(None);
        };
        let rules = AuditPolicy::read(policy)?.rules();
        if !has_backend {
            tracing::warn!("nothing is audited: neither --audit-log-path nor --audit-webhook-config-file says where");
            return Ok(None);
        }
        let modes = [log.as_ref().map(|log| log.mode), webhook.as_ref().map(|webhook| webhook.mode)];
        if modes.contains(&Some(AuditMode::BlockingStrict)) && rules.omit(AuditStage::RequestReceived) {
            // As in Kubernetes: the first event alone decides whether a request is handled.
            tracing::warn!("blocking-strict refuses no request whose event RequestReceived the audit policy omits");
        }
        let (metrics, hurry) = (Arc::new(AuditMetrics::default()), CancellationToken::new());
        let limits = MemoryLimits::default();
        let mut sink = AuditSink::new(metrics.clone(), hurry.clone(), limits.queue);
        if let Some(log) = log {
            let backend = AuditLog::open(log, metrics.clone()).map_err(AuditError::Log)?;
            sink.add(Arc::new(backend), log.mode, log.batch(), log.truncate);
        }
        if let Some(webhook) = webhook {
            let backend = AuditWebhook::new(webhook, hurry).await?;
            sink.add(Arc::new(backend), webhook.mode, webhook.batch(), webhook.truncate);
        }
        let memory = Arc::new(AuditMemory::new(limits, sink.is_awaited()));
        Ok(Some(Self { rules: Arc::new(rules), sink: Arc::new(sink), memory, metrics }))
    }

    /// Begins the audit of a request, if the policy wants it. `facts` are asked for only then.
    pub fn begin<'f>(
        &self,
        request: &AuditAttributes<'_>,
        facts: impl FnOnce() -> RequestFacts<'f>,
    ) -> Option<AuditedRequest> {
        let decision = self.rules.decide(request);
        self.metrics.level(decision.map_or(AuditLevel::None, |decision| decision.level));
        let decision = decision?;
        let RequestFacts { audit_id, uri, user_agent: agent, source_ips } = facts();
        let now = Timestamp::now();
        let event = AuditEvent {
            level: decision.level,
            audit_id,
            stage: AuditStage::RequestReceived,
            request_uri: uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string),
            verb: request.verb.to_owned(),
            user: request.user.map(Into::into).unwrap_or_default(),
            impersonated_user: None,
            source_ips,
            user_agent: user_agent(agent),
            object_ref: ObjectReference::of(&request.target),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: now,
            stage_timestamp: now,
            annotations: BTreeMap::new(),
        };
        let record = AuditRecord::new(decision, event, self.memory.clone());
        Some(AuditedRequest::new(record, self.sink.clone(), self.metrics.clone()))
    }

    /// Tells what was counted.
    ///
    /// # Errors
    /// That the text could not be written.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        self.metrics.tell(scrape)
    }

    /// Writes the events that wait. After all requests have ended.
    pub async fn shut_down(&self) {
        if tokio::time::timeout(FLUSHED_WITHIN, self.sink.shut_down()).await.is_err() {
            tracing::error!("audit events are lost: they could not be written before the stop");
        }
    }
}
