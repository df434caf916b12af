//! Whether extension API servers are available: the condition `Available` of their APIServices.
//!
//! A server is available if its Service has the port and a ready endpoint, and answers for its group and version. It is
//! asked again every half minute, and sooner after a failure or when something changes.
//!
//! Source: `remote_available_controller.go` of kube-aggregator.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use http::{Request, StatusCode, header, header::InvalidHeaderValue};
use hyper_util::client::legacy;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    Aggregator,
    backend::{Backend, Http},
};
use crate::{
    identity::Identity,
    proxy_headers, rfc3339,
    store::Snapshot,
    webhook::{self, ResolveError, WebhookTarget},
};

/// How often a server is asked that was available.
pub const RECHECK: Duration = Duration::from_secs(30);
/// The first wait after a failure; it doubles up to [`RECHECK`].
pub const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Servers are asked this often, for one of several endpoints may be out of order.
const ATTEMPTS: usize = 5;
/// How long an answer is waited for before the server is asked once more beside it.
const STAGGER: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// What the condition `Available` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Availability {
    /// `True`, `False`
    pub status: &'static str,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why.
    pub message: String,
}

impl Availability {
    fn no(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    /// Whether a retry is worth more than waiting for a change.
    pub fn is_unreachable(&self) -> bool {
        self.reason == "FailedDiscoveryCheck"
    }

    /// Whether the object has the same condition but for its message.
    fn differs_in_words_only(&self, object: &Value) -> bool {
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| {
            condition["type"] == "Available" && condition["status"] == self.status && condition["reason"] == self.reason
        })
    }

    /// The object with the condition; nothing if it says so already.
    pub fn put_into(&self, object: &Value) -> Option<Value> {
        let mut changed = object.clone();
        if !changed["status"].is_object() {
            changed["status"] = json!({});
        }
        let conditions = &mut changed["status"]["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        let list = conditions.as_array_mut()?;
        match list.iter_mut().find(|condition| condition["type"] == "Available") {
            Some(standing) => {
                if standing["status"] != self.status {
                    standing["status"] = self.status.into();
                    standing["lastTransitionTime"] = rfc3339::now().into();
                }
                standing["reason"] = self.reason.into();
                standing["message"] = self.message.as_str().into();
            }
            None => list.push(json!({"type": "Available", "status": self.status,
                "lastTransitionTime": rfc3339::now(), "reason": self.reason, "message": self.message})),
        }
        (changed != *object).then_some(changed)
    }
}

/// The APIServices whose servers cannot be reached.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<String, Failing>>);

/// What is remembered of one of them.
#[derive(Debug, Default)]
struct Failing {
    /// How often in a row it could not be reached.
    count: u32,
    /// When its condition was written last.
    told: Option<Instant>,
}

impl Failures {
    /// Whether a condition that says `found` is to be written into `object` at `now`. Of a server that cannot be
    /// reached, the text of the error may differ each time, for it names one of several endpoints: that alone is told
    /// no more often than servers are asked.
    pub fn tell_now(&self, name: &str, found: &Availability, object: &Value, now: Instant) -> bool {
        let mut failures = self.0.lock();
        let Some(failing) = failures.get_mut(name).filter(|_| found.is_unreachable()) else { return true };
        let lately = failing.told.is_some_and(|told| now.saturating_duration_since(told) < RECHECK);
        if lately && found.differs_in_words_only(object) {
            return false;
        }
        failing.told = Some(now);
        true
    }

    /// Counts what was found, and says when the server is to be asked again.
    pub fn count(&self, name: &str, found: &Availability) -> Duration {
        let mut failures = self.0.lock();
        if !found.is_unreachable() {
            failures.remove(name);
            return RECHECK;
        }
        let failing = failures.entry(name.to_owned()).or_default();
        let wait = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failing.count));
        failing.count = failing.count.saturating_add(1);
        wait.min(RECHECK)
    }

    /// Forgets an APIService that is gone.
    pub fn forget(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

/// Why a Service cannot lead to a server, as far as its objects tell.
pub fn of_service(snapshot: &Snapshot, namespace: &str, name: &str, port: u16) -> Result<(), Availability> {
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or_default();
    let Some(service) = snapshot.get("services", &format!("{namespace}/{name}")) else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Err(Availability::no("ServiceNotFound", message));
    };
    let service = parse(&service.json());
    if service["spec"]["type"].as_str().is_some_and(|kind| kind != "ClusterIP") {
        return Ok(());
    }
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let Some(found) = ports.find(|one| one["port"] == port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(Availability::no("ServicePortError", message));
    };
    let port_name = found["name"].as_str().unwrap_or_default();
    let prefix = format!("{namespace}/");
    let slices: Vec<Value> = snapshot
        .list("endpointslices.discovery.k8s.io", &prefix, None)
        .filter(|(_, slice)| slice.header().label("kubernetes.io/service-name") == Some(name))
        .map(|(_, slice)| parse(&slice.json()))
        .collect();
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(Availability::no("EndpointsNotFound", message));
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_active = |slice: &Value| {
        list(&slice["endpoints"]).iter().any(|endpoint| endpoint["conditions"]["ready"] != false)
            && list(&slice["ports"])
                .iter()
                .any(|port| port["name"].as_str().unwrap_or_default() == port_name && port["port"].is_u64())
    };
    if !slices.iter().any(is_active) {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        return Err(Availability::no("MissingEndpoints", message));
    }
    Ok(())
}

impl Aggregator {
    /// Whether the server is available now.
    pub(super) async fn availability(&self, backend: &Backend) -> Availability {
        if let WebhookTarget::Service { namespace, name, port } = &backend.target
            && let Err(found) = of_service(&self.store().snapshot(), namespace, name, *port)
        {
            return found;
        }
        // Not whom the certificate names: this tells only whether somebody answers.
        let http = match backend.unverified() {
            Ok(http) => http,
            Err(error) => return Availability::no("FailedDiscoveryCheck", error.to_string()),
        };
        let attempt = || self.ask(backend, http);
        let mut attempts: FuturesUnordered<_> = std::iter::once(attempt()).collect();
        let (mut begun, mut last) = (1, None);
        loop {
            let answer = tokio::time::timeout(STAGGER, attempts.next()).await;
            match answer {
                Ok(Some(Ok(()))) => {
                    let message = "all checks passed".to_owned();
                    return Availability { status: "True", reason: "Passed", message };
                }
                Ok(Some(Err(error))) => last = Some(error),
                Ok(None) if begun == ATTEMPTS => break,
                Ok(None) | Err(_) => {}
            }
            if begun < ATTEMPTS {
                begun += 1;
                attempts.push(attempt());
            }
        }
        let message = last.map(|error| error.to_string()).unwrap_or_default();
        Availability::no("FailedDiscoveryCheck", message)
    }

    /// Asks the server for what it must have.
    async fn ask(&self, backend: &Backend, http: &Http) -> Result<(), AvailabilityError> {
        let address = backend.target.address(&self.store().snapshot()).map_err(AvailabilityError::Resolve)?;
        let url = format!("https://{address}/{}", backend.root());
        let failed = |cause| AvailabilityError::Request { url: url.clone(), cause };
        let mut request = Request::get(&url).header(header::USER_AGENT, super::USER_AGENT);
        if let Some(headers) = request.headers_mut() {
            proxy_headers::identify(headers, &aggregator()).map_err(|error| failed(ProbeFailure::Header(error)))?;
        }
        let request = request.body(axum::body::Body::empty());
        let request = request.map_err(|error| failed(ProbeFailure::Invalid(error)))?;
        match tokio::time::timeout(LONGEST, http.request(request)).await {
            Err(_) => Err(failed(ProbeFailure::TimedOut { url: url.clone() })),
            Ok(Err(error)) => Err(failed(ProbeFailure::Send { url: url.clone(), error })),
            // Source: "we should always been in the 200s or 300s", which is not what it then checks.
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(failed(ProbeFailure::Status { url: url.clone(), code: response.status() })),
        }
    }
}

/// Why a server does not answer for its group and version: the message of its condition.
#[derive(Debug, thiserror::Error)]
enum AvailabilityError {
    /// Its Service leads nowhere.
    #[error(transparent)]
    Resolve(ResolveError),
    /// It was not asked, or gave no good answer.
    #[error("failing or missing response from {url}: {cause}")]
    Request { url: String, cause: ProbeFailure },
}

/// What became of a request to a server. The words are those of Go's client where it has some.
#[derive(Debug, thiserror::Error)]
enum ProbeFailure {
    /// Who asks cannot be said in a header.
    #[error(transparent)]
    Header(InvalidHeaderValue),
    /// It is no request.
    #[error(transparent)]
    Invalid(http::Error),
    #[error("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    TimedOut { url: String },
    #[error("Get {url:?}: {}", webhook::cause(.error))]
    Send { url: String, error: legacy::Error },
    #[error("bad status from {url}: {}", .code.as_u16())]
    Status { url: String, code: StatusCode },
}

/// As whom servers are asked for their discovery.
pub fn aggregator() -> Identity {
    Identity {
        name: "system:kube-aggregator".into(),
        groups: vec![crate::identity::MASTERS.into()],
        ..Identity::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        encode,
        store::{EventType, Key, Object},
    };

    fn snapshot(objects: &[(&str, &str, Value)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (resource, key, object) in objects {
            let object = Object::new(encode::unserved(object), 1, EventType::Added);
            snapshot.load(Key { resource: (*resource).into(), name: (*key).into() }, Arc::new(object));
        }
        snapshot
    }

    #[test]
    fn the_reasons_are_those_of_kubernetes() {
        let service = |spec: Value| ("services", "ns/api", json!({"metadata": {"name": "api"}, "spec": spec}));
        let slice = |ports: Value, endpoints: Value| {
            let labels = json!({"kubernetes.io/service-name": "api"});
            let slice = json!({"metadata": {"name": "api-1", "namespace": "ns", "labels": labels},
                "ports": ports, "endpoints": endpoints});
            ("endpointslices.discovery.k8s.io", "ns/api-1", slice)
        };
        let found = |objects: &[(&str, &str, Value)]| {
            of_service(&snapshot(objects), "ns", "api", 443).map_err(|found| (found.reason, found.message))
        };
        let told = |reason: &'static str, message: &str| Err((reason, message.to_owned()));
        assert_eq!(found(&[]), told("ServiceNotFound", "service/api in \"ns\" is not present"));
        let other = service(json!({"ports": [{"port": 80}], "type": "ClusterIP"}));
        assert_eq!(found(&[other]), told("ServicePortError", "service/api in \"ns\" is not listening on port 443"));
        let right = service(json!({"ports": [{"port": 443, "name": "https"}]}));
        let none = "cannot find endpointslices for service/api in \"ns\"";
        assert_eq!(found(std::slice::from_ref(&right)), told("EndpointsNotFound", none));
        let unready = slice(json!([{"name": "https", "port": 1}]), json!([{"conditions": {"ready": false}}]));
        let missing = "endpointslices for service/api in \"ns\" have no addresses with port name \"https\"";
        assert_eq!(found(&[right.clone(), unready]), told("MissingEndpoints", missing));
        let unnamed = slice(json!([{"name": "http", "port": 1}]), json!([{"addresses": ["10.0.0.1"]}]));
        assert_eq!(found(&[right.clone(), unnamed]), told("MissingEndpoints", missing));
        let ready = slice(json!([{"name": "https", "port": 1}]), json!([{"addresses": ["10.0.0.1"]}]));
        assert_eq!(found(&[right, ready]), Ok(()));
        assert_eq!(found(&[service(json!({"type": "ExternalName"}))]), Ok(()));
    }

    #[test]
    fn a_condition_changes_its_time_with_its_status_and_leaves_others_alone() {
        let other = json!({"type": "Other", "status": "True"});
        let object = json!({"status": {"conditions": [other]}});
        let no = Availability::no("ServiceNotFound", "m".into());
        let first = no.put_into(&object).unwrap();
        assert_eq!(first["status"]["conditions"][0], other);
        assert_eq!(no.put_into(&first), None);
        let mut old = first.clone();
        old["status"]["conditions"][1]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        let again = Availability::no("MissingEndpoints", "m".into()).put_into(&old).unwrap();
        assert_eq!(again["status"]["conditions"][1]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        let yes = Availability { status: "True", reason: "Passed", message: String::new() }.put_into(&again).unwrap();
        assert_ne!(yes["status"]["conditions"][1]["lastTransitionTime"], "2020-01-01T00:00:00Z");
    }

    #[test]
    fn an_error_whose_text_differs_each_time_is_told_as_often_as_servers_are_asked() {
        let failures = Failures::default();
        let start = Instant::now();
        let no = |text: &str| Availability::no("FailedDiscoveryCheck", text.into());
        let tell = |object: &mut Value, found: &Availability, at: Duration| {
            failures.count("a", found);
            let Some(changed) = found.put_into(object) else { return false };
            let told = failures.tell_now("a", found, object, start + at);
            if told {
                *object = changed;
            }
            told
        };
        let mut object = json!({});
        assert!(tell(&mut object, &no("10.0.0.1: refused"), Duration::ZERO), "the condition is new");
        assert!(!tell(&mut object, &no("10.0.0.2: refused"), Duration::from_secs(1)));
        assert!(!tell(&mut object, &no("10.0.0.3: refused"), Duration::from_secs(29)));
        assert!(tell(&mut object, &no("10.0.0.2: refused"), RECHECK));
        assert!(!tell(&mut object, &no("10.0.0.1: refused"), RECHECK + Duration::from_secs(1)));
        let missing = Availability::no("MissingEndpoints", "m".into());
        assert!(tell(&mut object, &missing, RECHECK + Duration::from_secs(1)), "another reason");
        assert!(tell(&mut object, &no("10.0.0.1: refused"), RECHECK + Duration::from_secs(1)));
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_asked_ever_less_often() {
        let failures = Failures::default();
        let no = Availability::no("FailedDiscoveryCheck", String::new());
        let waits: Vec<Duration> = (0..20).map(|_| failures.count("a", &no)).collect();
        assert_eq!(waits[..3], [FIRST_RETRY, FIRST_RETRY * 2, FIRST_RETRY * 4]);
        assert_eq!(waits[19], RECHECK);
        let yes = Availability { status: "True", reason: "Passed", message: String::new() };
        assert_eq!((failures.count("a", &yes), failures.count("a", &no)), (RECHECK, FIRST_RETRY));
    }
}
