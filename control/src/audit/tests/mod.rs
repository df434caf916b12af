//! Auditing as a whole: what is asked of a real server, what its backends get, and what admission notes.

mod admission;
mod authentication;
mod backends;
mod bodies;
mod endings;
mod http;
mod memory;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Audit, AuditAttributes, AuditTarget, AuditedRequest, RequestFacts,
    backend::AuditBackend,
    memory::{AuditMemory, MemoryLimits},
    options::{AuditLogOptions, AuditLogTarget, AuditMode, AuditOptions, BatchOptions},
    policy::AuditPolicy,
    sink::AuditSink,
};
use crate::{identity::Identity, metrics::Metrics};

/// Options with a policy of these rules, and a log in the same directory.
pub fn options(dir: &Path, rules: &str) -> AuditOptions {
    let policy = dir.join("policy.yaml");
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitManagedFields: true\nrules:\n{rules}");
    std::fs::write(&policy, text).unwrap();
    let log = AuditLogOptions::new(AuditLogTarget::File(log_path(dir)));
    AuditOptions { policy_file: Some(policy), log: Some(log), webhook: None }
}

/// Begins a request that an auditor with such a policy records.
pub fn begin(audit: &Audit, id: usize) -> AuditedRequest {
    let user = Identity::anonymous();
    let uri = ::http::Uri::from_static("/version?x=1");
    let request = AuditAttributes { user: Some(&user), verb: "get", target: AuditTarget::Path("/version") };
    let facts = RequestFacts { audit_id: id.to_string(), uri: &uri, user_agent: "", source_ips: Vec::new() };
    audit.begin(&request, || facts).unwrap()
}

/// Audits with these rules to a backend of a test.
fn audit_to(
    backend: Arc<dyn AuditBackend>,
    rules: &str,
    (mode, batch): (AuditMode, BatchOptions),
    limits: MemoryLimits,
) -> Audit {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}");
    let rules = Arc::new(AuditPolicy::parse(&text).unwrap().rules());
    let metrics = Arc::default();
    let mut sink = AuditSink::new(Arc::clone(&metrics), CancellationToken::new(), limits.queue);
    sink.add(backend, mode, batch, None);
    let memory = Arc::new(AuditMemory::new(limits, sink.is_awaited()));
    Audit { rules, sink: Arc::new(sink), memory, metrics }
}

/// What an auditor tells of itself.
fn metrics(audit: &Audit) -> String {
    let (metrics, told) = (Metrics::default(), audit.clone());
    metrics.add(move |scrape| told.tell(scrape));
    metrics.render().unwrap()
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("audit.log")
}

/// The events in the log, in their order.
pub fn events(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log_path(dir)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
