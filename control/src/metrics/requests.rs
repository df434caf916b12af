//! Requests and watches, counted while they are answered.
//!
//! The labels of a request are few: verb, resource, scope. Their counters are looked up by what the request already
//! holds, with no text made and nothing allocated; what nothing serves is counted under empty names, so that nobody
//! fills the memory with them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use indexmap::{Equivalent, IndexMap};
use parking_lot::RwLock;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::request::{RequestInfo, Verb, path::ResourcePath};

/// `apiserver_request_duration_seconds`: Kubernetes' buckets.
const DURATION_BOUNDS: [f64; 20] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0];

type LabelSet = Vec<(&'static str, String)>;

/// Counts requests. Shared by all handlers.
#[derive(Debug)]
pub struct RequestMetrics {
    total: Family<LabelSet, Counter>,
    durations: Family<LabelSet, Histogram, fn() -> Histogram>,
    long_running: Family<LabelSet, Gauge>,
    events: Family<LabelSet, Counter>,
    mutating: Gauge,
    read_only: Gauge,
    refused: Family<LabelSet, Counter>,
    series: RwLock<IndexMap<Series, Arc<Handles>>>,
}

/// What the counters of a request are found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Series {
    verb: Verb,
    long_running: bool,
    scope: RequestScope,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

/// [`Series`] of a request, borrowed from it. Hashes alike: its fields are the same, in the same order.
#[derive(Clone, Copy, Hash)]
struct SeriesOf<'a> {
    verb: Verb,
    long_running: bool,
    scope: RequestScope,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
}

/// `scope` in Kubernetes' metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RequestScope {
    Cluster,
    Namespace,
    Resource,
    None,
}

/// The counters of one series.
#[derive(Debug)]
struct Handles {
    labels: LabelSet,
    measure: Measure,
    /// By status code; few.
    codes: RwLock<Vec<(u16, Counter)>>,
}

/// What is measured of a request, beside its number.
#[derive(Clone, Debug)]
enum Measure {
    /// How many are under way: their answers may have no end.
    LongRunning(Gauge),
    /// How long each takes.
    Duration(Histogram),
}

/// A request under way. Dropped without [`RunningRequest::answered`], it was given up by its client.
#[derive(Debug)]
pub struct RunningRequest {
    metrics: Arc<RequestMetrics>,
    handles: Arc<Handles>,
    /// How many such requests are under way.
    gauge: Gauge,
    begun: Instant,
}

/// Counts the events that are sent to watchers of one kind.
pub type WatchEvents = Counter;

impl RequestMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let total = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(DURATION_BOUNDS)) as fn() -> Histogram);
        let (long_running, events, refused) = (Family::default(), Family::default(), Family::default());
        let inflight = Family::<LabelSet, Gauge>::default();
        let kind = |kind: &str| inflight.get_or_create_owned(&vec![("request_kind", kind.to_owned())]);
        let (mutating, read_only) = (kind("mutating"), kind("readOnly"));
        registry.register("apiserver_request", "Requests by verb, resource and status code", total.clone());
        let help = "How long it took to answer requests that are not long-running, in seconds";
        registry.register("apiserver_request_duration_seconds", help, durations.clone());
        let help = "Watches and streams under way";
        registry.register("apiserver_longrunning_requests", help, long_running.clone());
        let help = "Requests under way that are not long-running";
        registry.register("apiserver_current_inflight_requests", help, inflight);
        registry.register("apiserver_watch_events", "Events sent to watchers", events.clone());
        let help = "Requests refused before they were understood or their sender was known, by status code";
        registry.register("fairlead_refused_requests", help, refused.clone());
        let series = RwLock::default();
        Self { total, durations, long_running, events, mutating, read_only, refused, series }
    }

    /// Begins to count a request. `long_running` says whether its answer may have no end; `served`, whether its
    /// resource is served: it is asked only at the first of a series.
    pub fn begin(
        self: &Arc<Self>,
        info: &RequestInfo,
        long_running: bool,
        served: impl FnOnce(&ResourcePath) -> bool,
    ) -> RunningRequest {
        let handles = self.handles(info, long_running, served);
        let gauge = match &handles.measure {
            Measure::LongRunning(gauge) => gauge.clone(),
            Measure::Duration(_) if info.verb.is_write() => self.mutating.clone(),
            Measure::Duration(_) => self.read_only.clone(),
        };
        gauge.inc();
        RunningRequest { metrics: self.clone(), handles, gauge, begun: Instant::now() }
    }

    /// Counts a request that was refused before a handler saw it.
    pub fn refused(&self, code: u16) {
        self.refused.get_or_create(&vec![("code", code.to_string())]).inc();
    }

    /// The counter of events of one kind, to be kept by a watch.
    pub fn watch_events(&self, group: &str, version: &str, kind: &str) -> WatchEvents {
        let labels = [("group", group), ("version", version), ("kind", kind)];
        self.events.get_or_create_owned(&labels.map(|(name, value)| (name, value.to_owned())).to_vec())
    }

    fn handles(
        &self,
        info: &RequestInfo,
        long_running: bool,
        served: impl FnOnce(&ResourcePath) -> bool,
    ) -> Arc<Handles> {
        let series = SeriesOf::of(info, long_running);
        if let Some(handles) = self.series.read().get(&series) {
            return handles.clone();
        }
        let known = info.resource().is_none_or(served);
        let series = if known { series } else { series.unknown() };
        if let Some(handles) = self.series.read().get(&series) {
            return handles.clone();
        }
        let mut all = self.series.write();
        all.entry(series.owned()).or_insert_with(|| Arc::new(self.resolve(series))).clone()
    }

    fn resolve(&self, series: SeriesOf<'_>) -> Handles {
        let labels = series.labels();
        Handles {
            measure: match series.long_running {
                true => Measure::LongRunning(self.long_running.get_or_create_owned(&labels)),
                false => Measure::Duration(self.durations.get_or_create_owned(&labels)),
            },
            codes: RwLock::default(),
            labels,
        }
    }
}

impl RunningRequest {
    /// The request is answered with this status code. Dropped when the body of a long-running request has ended, and at
    /// once otherwise.
    pub fn answered(&self, code: u16) {
        if let Measure::Duration(durations) = &self.handles.measure {
            durations.observe(self.elapsed().as_secs_f64());
        }
        let counted = self.handles.codes.read().iter().find(|(known, _)| *known == code).map(|(_, c)| c.inc());
        if counted.is_none() {
            let mut labels = self.handles.labels.clone();
            labels.push(("code", code.to_string()));
            let counter = self.metrics.total.get_or_create_owned(&labels);
            counter.inc();
            let mut codes = self.handles.codes.write();
            if !codes.iter().any(|(known, _)| *known == code) {
                codes.push((code, counter));
            }
        }
    }

    /// Whether the answer may have no end: this value is then to be kept until its body ends.
    pub fn is_long_running(&self) -> bool {
        matches!(self.handles.measure, Measure::LongRunning(_))
    }

    /// How long the request is under way.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl<'a> SeriesOf<'a> {
    fn of(info: &'a RequestInfo, long_running: bool) -> Self {
        let verb = info.verb;
        let series = Self {
            verb,
            long_running,
            scope: RequestScope::None,
            group: "",
            version: "",
            resource: "",
            subresource: "",
        };
        let Some(resource) = info.resource() else { return series };
        Self {
            scope: match (&resource.name, &resource.namespace) {
                (Some(_), _) => RequestScope::Resource,
                (None, Some(_)) => RequestScope::Namespace,
                (None, None) => RequestScope::Cluster,
            },
            group: &resource.group,
            version: &resource.version,
            resource: &resource.resource,
            subresource: resource.subresource.as_deref().unwrap_or_default(),
            ..series
        }
    }

    /// The series of everything that nothing serves.
    fn unknown(self) -> Self {
        Self { group: "", version: "", resource: "", subresource: "", ..self }
    }

    fn owned(self) -> Series {
        Series {
            verb: self.verb,
            long_running: self.long_running,
            scope: self.scope,
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            resource: self.resource.to_owned(),
            subresource: self.subresource.to_owned(),
        }
    }

    /// As Kubernetes names them.
    fn labels(self) -> LabelSet {
        let scope = match self.scope {
            RequestScope::Cluster => "cluster",
            RequestScope::Namespace => "namespace",
            RequestScope::Resource => "resource",
            RequestScope::None => "",
        };
        let verb = self.verb.as_str().to_ascii_uppercase();
        let texts = [
            ("group", self.group),
            ("resource", self.resource),
            ("scope", scope),
            ("subresource", self.subresource),
            ("version", self.version),
        ];
        let texts = texts.into_iter().map(|(name, value)| (name, value.to_owned()));
        [("component", "apiserver".to_owned()), ("verb", verb)].into_iter().chain(texts).collect()
    }
}

impl Equivalent<Series> for SeriesOf<'_> {
    fn equivalent(&self, key: &Series) -> bool {
        self.verb == key.verb
            && self.long_running == key.long_running
            && self.scope == key.scope
            && self.resource == key.resource
            && self.subresource == key.subresource
            && self.group == key.group
            && self.version == key.version
    }
}

#[cfg(test)]
mod tests {
    use crate::{metrics::Metrics, request::tests::parse};

    fn lines(metrics: &Metrics, start: &str) -> Vec<String> {
        let text = metrics.render().unwrap();
        text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
    }

    #[test]
    fn requests_are_counted_by_verb_resource_and_code() {
        let metrics = Metrics::default();
        let get = parse("GET", "/api/v1/namespaces/a/pods/b").unwrap();
        for code in [200, 404, 200] {
            metrics.requests().begin(&get, false, |_| true).answered(code);
        }
        let labels =
            r#"component="apiserver",verb="GET",group="",resource="pods",scope="resource",subresource="",version="v1""#;
        let total = lines(&metrics, "apiserver_request_total");
        assert!(total.contains(&format!("apiserver_request_total{{{labels},code=\"200\"}} 2")), "{total:?}");
        assert!(total.contains(&format!("apiserver_request_total{{{labels},code=\"404\"}} 1")), "{total:?}");
        let count = lines(&metrics, "apiserver_request_duration_seconds_count");
        assert_eq!(count, [format!("apiserver_request_duration_seconds_count{{{labels}}} 3")]);
    }

    #[test]
    fn what_is_not_served_has_one_series() {
        let metrics = Metrics::default();
        for n in 0..100 {
            let info = parse("GET", &format!("/apis/g{n}.io/v1/things")).unwrap();
            metrics.requests().begin(&info, false, |_| false).answered(404);
        }
        assert_eq!(lines(&metrics, "apiserver_request_total").len(), 1);
        assert_eq!(metrics.requests().series.read().len(), 1);
    }

    #[test]
    fn requests_under_way_are_counted_until_they_end_or_are_given_up() {
        let metrics = Metrics::default();
        let create = parse("POST", "/api/v1/namespaces/a/pods").unwrap();
        let watch = parse("GET", "/api/v1/pods?watch=true").unwrap();
        let value = |start: &str| lines(&metrics, start)[0].rsplit(' ').next().map(str::to_owned).unwrap();
        let writes = r#"apiserver_current_inflight_requests{request_kind="mutating"}"#;
        let create = metrics.requests().begin(&create, false, |_| true);
        let watch = metrics.requests().begin(&watch, true, |_| true);
        assert_eq!((value(writes), value("apiserver_longrunning_requests")), ("1".to_owned(), "1".to_owned()));
        watch.answered(200);
        drop(create);
        assert_eq!((value(writes), value("apiserver_longrunning_requests")), ("0".to_owned(), "1".to_owned()));
        drop(watch);
        assert_eq!(value("apiserver_longrunning_requests"), "0");
    }
}
