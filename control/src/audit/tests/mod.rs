//! Auditing as a whole: what is asked of a real server, what its backends get, and what admission notes.

mod admission;
mod backends;
mod http;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::options::{AuditLogOptions, AuditLogTarget, AuditOptions};

/// Options with a policy of these rules, and a log in the same directory.
pub fn options(dir: &Path, rules: &str) -> AuditOptions {
    let policy = dir.join("policy.yaml");
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitManagedFields: true\nrules:\n{rules}");
    std::fs::write(&policy, text).unwrap();
    let log = AuditLogOptions::new(AuditLogTarget::File(log_path(dir)));
    AuditOptions { policy_file: Some(policy), log: Some(log), webhook: None }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("audit.log")
}

/// The events in the log, in their order.
pub fn events(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log_path(dir)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
