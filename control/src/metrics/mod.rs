//! `/metrics`: what the control service counts and measures, as OpenMetrics text, under Kubernetes' names where they
//! mean the same.
//!
//! | file | what it holds |
//! |---|---|
//! | `requests` | requests and watches, counted while they are answered: `apiserver_*` |
//! | `admission` | webhooks, policies and quotas: `apiserver_admission_*` |
//! | `connections` | connections and their TLS handshakes: `fairlead_connections_opened_total` |
//! | `scrape` | how other parts tell their counts when they are asked |
//! | `process` | the process: `process_*` |
//! | `store` | commits, transactions and watches of the store |
//! | `scheduler`, `work_queues` | attempts to schedule, and the controllers' queues: `scheduler_*`, `workqueue_*` |
//! | `tasks` | supervised tasks: `fairlead_task_*` |
//!
//! A part that counts for itself registers with [`Metrics::add`]; nothing is pushed here on its hot path.

mod admission;
mod connections;
mod process;
mod requests;
mod scheduler;
mod scrape;
mod store;
mod tasks;
mod work_queues;

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{encoding::text, registry::Registry};

pub use admission::{AdmissionMetrics, WebhookCall};
pub use connections::{ConnectionMetrics, HandshakeFailure};
pub use requests::{RequestMetrics, WatchEvents};
pub use scheduler::tell as tell_scheduler;
pub use scrape::{HistogramSample, Labels, Scrape};
pub use store::tell as tell_store;
pub use tasks::tell as tell_tasks;
pub use work_queues::tell as tell_work_queues;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted. Cheap to clone; clones share the counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Arc<RequestMetrics>,
    /// Locked while it is rendered or added to, never while something is counted.
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Arc::new(RequestMetrics::new(&mut registry));
        let metrics = Self { requests, registry: Arc::new(Mutex::new(registry)) };
        metrics.add(process::tell);
        metrics
    }
}

impl Metrics {
    /// Requests and watches.
    pub fn requests(&self) -> &Arc<RequestMetrics> {
        &self.requests
    }

    /// Has `tell` asked at each scrape. Each name may be told once only.
    pub fn add(&self, tell: impl Fn(&mut Scrape<'_>) -> fmt::Result + Send + Sync + 'static) {
        self.registry.lock().register_collector(scrape::collector(tell));
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry.lock())?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_told_at_each_scrape() {
        let metrics = Metrics::default();
        metrics.add(|scrape| {
            scrape.counters("apples", "Apples picked.", [(&[("sort", "red")][..], 3_u64)])?;
            let sizes = HistogramSample { bounds: &[1.0, 2.0], counts: &[1, 2, 4], sum: 12.5 };
            scrape.histograms("apple_size", "Sizes of apples.", [(&[][..], sizes)])
        });
        let text = metrics.render().unwrap();
        for line in [
            "# TYPE apples counter",
            "apples_total{sort=\"red\"} 3",
            "apple_size_bucket{le=\"2.0\"} 3",
            "apple_size_bucket{le=\"+Inf\"} 7",
            "apple_size_count 7",
            "apple_size_sum 12.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
