//! Whether extension API servers are available: the condition `Available` of their APIServices.
//!
//! A server is available if its Service has the port and a ready endpoint, and answers for its group and version. It is
//! asked again every half minute, and sooner after a failure or when something changes.
//!
//! Source: `remote_available_controller.go` of kube-aggregator.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use http::{Request, header};
use serde_json::{Value, json};

use super::{
    Aggregator,
    backend::{self, Backend, Http},
    headers,
};
use crate::{
    identity::Identity,
    rfc3339,
    store::Snapshot,
    webhook::{self, Target},
};

/// How often a server is asked that was available.
pub const RECHECK: Duration = Duration::from_secs(30);
/// The first wait after a failure; it doubles up to [`RECHECK`].
pub const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Servers are asked this often at once, for one of several endpoints may be out of order.
const ATTEMPTS: usize = 5;
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

/// Why a Service cannot lead to a server, as far as its objects tell.
pub fn of_service(snapshot: &Snapshot, namespace: &str, name: &str, port: u16) -> Result<(), Availability> {
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or_default();
    let Some(service) = snapshot.get("services", &format!("{namespace}/{name}")) else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Err(Availability::no("ServiceNotFound", message));
    };
    let service = parse(service.json());
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
        .filter(|(_, slice)| {
            let mut labels = slice.header.labels.iter();
            labels.any(|(key, value)| &**key == "kubernetes.io/service-name" && **value == *name)
        })
        .map(|(_, slice)| parse(slice.json()))
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
        if let Target::Service { namespace, name, port } = &backend.target
            && let Err(found) = of_service(&self.store().snapshot(), namespace, name, *port)
        {
            return found;
        }
        // Not whom the certificate names: this tells only whether somebody answers.
        let http = match backend::insecure(&backend.target, self.dialer()) {
            Ok(http) => http,
            Err(error) => return Availability::no("FailedDiscoveryCheck", error.to_string()),
        };
        let mut attempts: FuturesUnordered<_> = (0..ATTEMPTS).map(|_| self.ask(backend, &http)).collect();
        let mut last = String::new();
        while let Some(answer) = attempts.next().await {
            match answer {
                Ok(()) => {
                    let message = "all checks passed".to_owned();
                    return Availability { status: "True", reason: "Passed", message };
                }
                Err(error) => last = error,
            }
        }
        Availability::no("FailedDiscoveryCheck", last)
    }

    /// Asks the server for what it must have. The error is the condition's message.
    async fn ask(&self, backend: &Backend, http: &Http) -> Result<(), String> {
        let address = backend.target.address(&self.store().snapshot()).map_err(|error| error.to_string())?;
        let url = format!("https://{address}/{}", backend.root());
        let failed = |why: String| format!("failing or missing response from {url}: {why}");
        let got = |why: &str| failed(format!("Get {url:?}: {why}"));
        let mut request = Request::get(&url).header(header::USER_AGENT, super::USER_AGENT);
        if let Some(headers) = request.headers_mut() {
            headers::identify(headers, &aggregator()).map_err(|error| failed(error.to_string()))?;
        }
        let request = request.body(axum::body::Body::empty()).map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(LONGEST, http.request(request)).await {
            Err(_) => Err(got("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
            Ok(Err(error)) => Err(got(&webhook::cause(&error))),
            // Source: "we should always been in the 200s or 300s", which is not what it then checks.
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(failed(format!("bad status from {url}: {}", response.status().as_u16()))),
        }
    }
}

/// As whom servers are asked for their discovery.
pub fn aggregator() -> Identity {
    Identity {
        name: "system:kube-aggregator".into(),
        groups: vec![crate::auth::authorize::MASTERS.into()],
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
}
