//! What webhooks, policies and quotas did and how long they took, under Kubernetes' names.
//!
//! Source: `k8s.io/apiserver/pkg/admission/metrics` and `plugin/policy/{validating,mutating}/metrics`.

use std::{collections::BTreeMap, fmt, time::Duration};

use parking_lot::Mutex;

use super::scrape::{HistogramSample, Labels, Scrape};

const WEBHOOK_BOUNDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const CONTROLLER_BOUNDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const POLICY_BOUNDS: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];
/// Greater codes are counted as this one.
const GREATEST_CODE: u16 = 600;

/// Counts of admission. Labels are names of webhooks and policies, which administrators alone choose.
#[derive(Debug, Default)]
pub struct AdmissionMetrics {
    requests: Counts<5>,
    rejections: Counts<5>,
    fail_open: Counts<2>,
    webhooks: Durations<4>,
    controllers: Durations<4>,
    checks: Counts<4>,
    check_durations: Durations<4>,
    mutations: Counts<3>,
    mutation_durations: Durations<3>,
}

/// A call of a webhook that has ended.
#[derive(Clone, Copy, Debug)]
pub struct WebhookCall<'a> {
    /// Of the webhook.
    pub name: &'a str,
    /// Whether it may change objects.
    pub mutating: bool,
    /// `CREATE`
    pub operation: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The HTTP code of its answer, or of what became of the call.
    pub code: u16,
    /// Why the request was refused, if it was: `calling_webhook_error`, `apiserver_internal_error`, `no_error`.
    pub rejected: Option<&'static str>,
}

fn kind(mutating: bool) -> &'static str {
    if mutating { "admit" } else { "validating" }
}

impl AdmissionMetrics {
    /// Counts a call.
    pub fn called(&self, call: WebhookCall<'_>) {
        let WebhookCall { name, mutating, operation, took, code, rejected } = call;
        let (code, kind) = (code.min(GREATEST_CODE).to_string(), kind(mutating));
        if let Some(error) = rejected {
            self.rejections.add([name, kind, operation, error, &code]);
        }
        let rejected = if rejected.is_some() { "true" } else { "false" };
        self.requests.add([name, kind, operation, &code, rejected]);
        self.webhooks.observe([name, kind, operation, rejected], WEBHOOK_BOUNDS, took);
    }

    /// Counts a failed call that let the request pass.
    pub fn failed_open(&self, name: &str, mutating: bool) {
        self.fail_open.add([name, kind(mutating)]);
    }

    /// Counts what a policy decided and what a binding made of it: `allow`, `deny`, `warn`, `audit`.
    pub fn checked(&self, policy: &str, binding: &str, error: &str, action: &str, took: Duration) {
        let labels = [policy, binding, error, action];
        self.checks.add(labels);
        self.check_durations.observe(labels, POLICY_BOUNDS, took);
    }

    /// Counts a mutation of a policy, and what kept it from being made, if anything did.
    pub fn mutated(&self, policy: &str, binding: &str, error: &str, took: Duration) {
        let labels = [policy, binding, error];
        self.mutations.add(labels);
        self.mutation_durations.observe(labels, POLICY_BOUNDS, took);
    }

    /// Measures a built-in plugin that validated.
    pub fn validated(&self, plugin: &str, operation: &str, rejected: bool, took: Duration) {
        let rejected = if rejected { "true" } else { "false" };
        self.controllers.observe([plugin, "validate", operation, rejected], CONTROLLER_BOUNDS, took);
    }

    /// Tells everything.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let webhook = ["name", "type", "operation", "rejected"];
        let policy = ["policy", "policy_binding", "error_type", "enforcement_action"];
        self.webhooks.tell(
            scrape,
            "apiserver_admission_webhook_admission_duration_seconds",
            "Admission webhook latency in seconds.",
            webhook,
            WEBHOOK_BOUNDS,
        )?;
        self.controllers.tell(
            scrape,
            "apiserver_admission_controller_admission_duration_seconds",
            "Admission controller latency in seconds.",
            webhook,
            CONTROLLER_BOUNDS,
        )?;
        self.check_durations.tell(
            scrape,
            "apiserver_validating_admission_policy_check_duration_seconds",
            "Validation admission latency of policies in seconds.",
            policy,
            POLICY_BOUNDS,
        )?;
        let mutation = ["policy", "policy_binding", "error_type"];
        self.mutation_durations.tell(
            scrape,
            "apiserver_mutating_admission_policy_check_duration_seconds",
            "Mutation admission latency of single mutations of policies in seconds.",
            mutation,
            POLICY_BOUNDS,
        )?;
        self.mutations.tell(mutation, |samples| {
            let help = "Mutations of mutating admission policies.";
            scrape.counters("apiserver_mutating_admission_policy_check", help, samples)
        })?;
        self.requests.tell(["name", "type", "operation", "code", "rejected"], |samples| {
            scrape.counters("apiserver_admission_webhook_request", "Admission webhook requests.", samples)
        })?;
        self.checks.tell(policy, |samples| {
            let help = "Checks of validating admission policies.";
            scrape.counters("apiserver_validating_admission_policy_check", help, samples)
        })?;
        self.rejections.tell(["name", "type", "operation", "error_type", "rejection_code"], |samples| {
            let help = "Requests that admission webhooks rejected.";
            scrape.counts("apiserver_admission_webhook_rejection_count", help, samples)
        })?;
        self.fail_open.tell(["name", "type"], |samples| {
            let help = "Failed calls of admission webhooks that let the request pass.";
            scrape.counts("apiserver_admission_webhook_fail_open_count", help, samples)
        })
    }
}

/// Counters by the values of `N` labels.
#[derive(Debug)]
struct Counts<const N: usize> {
    by_labels: Mutex<BTreeMap<[String; N], u64>>,
}

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self { by_labels: Mutex::default() }
    }
}

impl<const N: usize> Counts<N> {
    fn add(&self, labels: [&str; N]) {
        let mut by_labels = self.by_labels.lock();
        let count = by_labels.entry(labels.map(str::to_owned)).or_default();
        *count = count.saturating_add(1);
    }

    fn tell(&self, names: [&'static str; N], tell: impl FnOnce(Vec<(Labels<'_>, u64)>) -> fmt::Result) -> fmt::Result {
        let by_labels = self.by_labels.lock();
        let rows: Vec<(Vec<(&str, &str)>, u64)> =
            by_labels.iter().map(|(values, count)| (pairs(names, values), *count)).collect();
        tell(rows.iter().map(|(labels, count)| (labels.as_slice(), *count)).collect())
    }
}

/// Histograms by the values of `N` labels.
#[derive(Debug)]
struct Durations<const N: usize> {
    by_labels: Mutex<BTreeMap<[String; N], Observed>>,
}

#[derive(Debug, Default)]
struct Observed {
    counts: Vec<u64>,
    sum: f64,
}

impl<const N: usize> Default for Durations<N> {
    fn default() -> Self {
        Self { by_labels: Mutex::default() }
    }
}

impl<const N: usize> Durations<N> {
    fn observe(&self, labels: [&str; N], bounds: &[f64], took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = bounds.partition_point(|bound| *bound < seconds);
        let mut by_labels = self.by_labels.lock();
        let observed = by_labels.entry(labels.map(str::to_owned)).or_default();
        observed.counts.resize(bounds.len().saturating_add(1), 0);
        if let Some(count) = observed.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        observed.sum += seconds;
    }

    fn tell(
        &self,
        scrape: &mut Scrape<'_>,
        name: &str,
        help: &str,
        names: [&'static str; N],
        bounds: &[f64],
    ) -> fmt::Result {
        let by_labels = self.by_labels.lock();
        let rows: Vec<(Vec<(&str, &str)>, &Observed)> =
            by_labels.iter().map(|(values, observed)| (pairs(names, values), observed)).collect();
        let sample = |observed: &&'_ Observed| (observed.counts.clone(), observed.sum);
        let samples: Vec<(Vec<u64>, f64)> = rows.iter().map(|(_, observed)| sample(observed)).collect();
        let histograms = rows
            .iter()
            .zip(&samples)
            .map(|((labels, _), (counts, sum))| (labels.as_slice(), HistogramSample { bounds, counts, sum: *sum }));
        scrape.histograms(name, help, histograms)
    }
}

fn pairs<'a, const N: usize>(names: [&'static str; N], values: &'a [String; N]) -> Vec<(&'a str, &'a str)> {
    names.into_iter().zip(values.iter().map(String::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn webhooks_and_policies_are_told_under_kubernetes_names() {
        let (metrics, admission) = (Metrics::default(), Arc::new(AdmissionMetrics::default()));
        let told = admission.clone();
        metrics.add(move |scrape| told.tell(scrape));
        assert!(metrics.render().unwrap().ends_with("# EOF\n"), "nothing was counted yet");
        let call = WebhookCall {
            name: "w",
            mutating: true,
            operation: "CREATE",
            took: Duration::from_millis(30),
            code: 200,
            rejected: None,
        };
        admission.called(call);
        admission.called(WebhookCall { mutating: false, code: 700, rejected: Some("no_error"), ..call });
        admission.failed_open("w", true);
        admission.checked("p", "b", "no_error", "deny", Duration::from_millis(2));
        admission.mutated("p", "b", "compile_error", Duration::from_millis(2));
        admission.validated("ResourceQuota", "CREATE", true, Duration::from_millis(2));
        let text = metrics.render().unwrap();
        for line in [
            r#"apiserver_admission_webhook_request_total{name="w",type="admit",operation="CREATE",code="200",rejected="false"} 1"#,
            r#"apiserver_admission_webhook_request_total{name="w",type="validating",operation="CREATE",code="600",rejected="true"} 1"#,
            r#"apiserver_admission_webhook_rejection_count{name="w",type="validating",operation="CREATE",error_type="no_error",rejection_code="600"} 1"#,
            r#"apiserver_admission_webhook_fail_open_count{name="w",type="admit"} 1"#,
            r#"apiserver_admission_webhook_admission_duration_seconds_bucket{le="0.025",name="w",type="admit",operation="CREATE",rejected="false"} 0"#,
            r#"apiserver_admission_webhook_admission_duration_seconds_bucket{le="0.1",name="w",type="admit",operation="CREATE",rejected="false"} 1"#,
            r#"apiserver_validating_admission_policy_check_total{policy="p",policy_binding="b",error_type="no_error",enforcement_action="deny"} 1"#,
            r#"apiserver_mutating_admission_policy_check_total{policy="p",policy_binding="b",error_type="compile_error"} 1"#,
            r#"apiserver_mutating_admission_policy_check_duration_seconds_count{policy="p",policy_binding="b",error_type="compile_error"} 1"#,
            r#"apiserver_admission_controller_admission_duration_seconds_count{name="ResourceQuota",type="validate",operation="CREATE",rejected="true"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
