//! What auditing counts, under Kubernetes' names, and its errors in the service's log.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::rules::AuditLevel;
use crate::metrics::Scrape;

/// Counts of one control service.
#[derive(Debug, Default)]
pub struct AuditMetrics {
    events: AtomicU64,
    rejected: AtomicU64,
    not_rotated: AtomicU64,
    levels: [AtomicU64; 4],
    errors: Mutex<BTreeMap<&'static str, PluginErrors>>,
}

/// Events that one plugin could not handle.
#[derive(Debug, Default)]
struct PluginErrors {
    count: u64,
    logged_count: u64,
    logged_at: Option<Instant>,
}

/// How often an error of one plugin is logged: a full disk fails each event.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

impl AuditMetrics {
    /// An event was made.
    pub fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// The policy decided about a request.
    pub fn level(&self, level: AuditLevel) {
        self.levels[level as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A request was refused because its event could not be written.
    pub fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// The log's file could not be replaced by a new one.
    pub fn not_rotated(&self) {
        self.not_rotated.fetch_add(1, Ordering::Relaxed);
    }

    /// A plugin could not handle so many events.
    pub fn failed(&self, plugin: &'static str, events: usize, error: &(dyn Error + 'static)) {
        let mut all = self.errors.lock();
        let errors = all.entry(plugin).or_default();
        errors.count = errors.count.saturating_add(events as u64);
        if errors.logged_at.is_none_or(|at| at.elapsed() >= LOGGED_EVERY) {
            let lost = errors.count.saturating_sub(errors.logged_count);
            (errors.logged_count, errors.logged_at) = (errors.count, Some(Instant::now()));
            tracing::error!(plugin, events = lost, error, "audit events are lost");
        }
    }

    /// How many events a plugin could not handle.
    #[cfg(test)]
    pub fn failures(&self, plugin: &str) -> u64 {
        self.errors.lock().get(plugin).map_or(0, |errors| errors.count)
    }

    /// Tells what was counted.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let help = "Counter of audit events generated and sent to the audit backend";
        scrape.counters("apiserver_audit_event", help, [(&[][..], value(&self.events))])?;
        let help = "Counter of apiserver requests rejected due to an error in audit logging backend";
        scrape.counters("apiserver_audit_requests_rejected", help, [(&[][..], value(&self.rejected))])?;
        let help = "How often the audit log could not be replaced by a new file";
        scrape.counters("fairlead_audit_log_rotation_failures", help, [(&[][..], value(&self.not_rotated))])?;
        let levels = [AuditLevel::None, AuditLevel::Metadata, AuditLevel::Request, AuditLevel::RequestResponse];
        let levels = levels.map(|level| ([("level", level.as_str())], value(&self.levels[level as usize])));
        let help = "Counter of policy levels for audit events (1 per request)";
        scrape.counters("apiserver_audit_level", help, levels.iter().map(|(labels, count)| (&labels[..], *count)))?;
        let errors: Vec<_> =
            self.errors.lock().iter().map(|(plugin, errors)| ([("plugin", *plugin)], errors.count)).collect();
        let help = "Counter of audit events that failed to be audited properly, by the plugin affected by the error";
        scrape.counters("apiserver_audit_error", help, errors.iter().map(|(labels, count)| (&labels[..], *count)))
    }
}
