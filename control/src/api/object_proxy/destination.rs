//! Where a proxied request goes: a port of a pod, or of a pod behind a Service. Pure, but for which pod is picked.
//!
//! Sources: `ResourceLocation` in `pkg/registry/core/pod/strategy.go` and `pkg/registry/core/service/storage`.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use rand::seq::SliceRandom;
use serde_json::Value;

use crate::{
    kinds::reading::items,
    status::{Status, Subject},
    store::Snapshot,
    webhook::is_own,
};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// Of a pod.
    pub address: SocketAddr,
    /// The pod's node.
    pub node: String,
}

/// What a pod says of where it is.
#[derive(Clone, Debug, Default)]
struct PodPlace {
    node: String,
    ips: Vec<IpAddr>,
}

impl PodPlace {
    /// A pod that has ended has no address: it may be another's by now.
    fn of(pod: &Value) -> Self {
        let status = &pod["status"];
        let has_ended = matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
        let all = items(&status["podIPs"]).map(|one| &one["ip"]).chain([&status["podIP"]]).filter(|_| !has_ended);
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        // What leads to this machine itself, or to several, is no pod's.
        Self { node, ips: all.filter_map(ip).filter(|ip| !is_own(*ip)).collect() }
    }
}

fn ip(text: &Value) -> Option<IpAddr> {
    Some(text.as_str()?.parse::<IpAddr>().ok()?.to_canonical())
}

/// What stands for the object's name in the path: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
struct Named<'a> {
    tls: bool,
    name: &'a str,
    /// Empty where none is said.
    port: &'a str,
}

impl<'a> Named<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, name, port) = match text.split(':').collect::<Vec<_>>()[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        // Names of ports are as long at most, and numbers shorter.
        let known = matches!(scheme, "" | "http" | "https") && !name.is_empty() && port.len() <= 63;
        known.then_some(Self { tls: scheme == "https", name, port })
    }
}

impl Destination {
    /// A port of a pod: the first that its containers declare where `text` says none.
    pub fn of_pod(snapshot: &Snapshot, namespace: &str, text: &str) -> Result<Self, Status> {
        let named = Named::of(text).ok_or_else(|| Status::bad_request(format!("invalid pod request {text:?}")))?;
        let pod = object(snapshot, "pods", namespace, named.name)?;
        let declared = || {
            let mut ports = items(&pod["spec"]["containers"]).filter_map(|one| items(&one["ports"]).next());
            ports.next().and_then(|port| port["containerPort"].as_u64()).map(|port| port.to_string())
        };
        let port = match named.port {
            "" => declared().unwrap_or_else(|| if named.tls { "443" } else { "80" }.to_owned()),
            port => port.to_owned(),
        };
        let PodPlace { node, ips } = PodPlace::of(&pod);
        let ip = *ips.first().ok_or_else(|| Status::bad_request("address not allowed"))?;
        let port = port.parse().map_err(|_| {
            Status::unavailable(format!("error trying to reach service: dial tcp: lookup tcp/{port}: unknown port"))
        })?;
        Ok(Self { tls: named.tls, address: SocketAddr::new(ip, port), node })
    }

    /// A port of a Service, by name or number: that of a ready pod behind it, any of them.
    pub fn of_service(snapshot: &Snapshot, namespace: &str, text: &str) -> Result<Self, Status> {
        let named = Named::of(text).ok_or_else(|| Status::bad_request(format!("invalid service request {text:?}")))?;
        let service = object(snapshot, "services", namespace, named.name)?;
        let port = match named.port.parse::<i64>() {
            Ok(number) => port_name(&service, number).ok_or_else(|| {
                Status::unavailable(format!("no service port {number} found for service {:?}", named.name))
            })?,
            Err(_) => named.port.to_owned(),
        };
        let endpoints = object(snapshot, "endpoints", namespace, named.name)?;
        let mut subsets: Vec<&Value> = items(&endpoints["subsets"]).collect();
        if subsets.is_empty() {
            return Err(Status::unavailable(format!("no endpoints available for service {:?}", named.name)));
        }
        subsets.shuffle(&mut rand::rng());
        let mut pods = HashMap::new();
        for subset in subsets {
            let mut ports = items(&subset["ports"]).filter(|one| one["name"].as_str().unwrap_or_default() == port);
            let number = ports.find_map(|one| u16::try_from(one["port"].as_u64()?).ok());
            let Some(number) = number else { continue };
            let mut addresses: Vec<&Value> = items(&subset["addresses"]).collect();
            addresses.shuffle(&mut rand::rng());
            let found = addresses.into_iter().find_map(|address| of_a_pod(snapshot, namespace, address, &mut pods));
            if let Some((ip, node)) = found {
                return Ok(Self { tls: named.tls, address: SocketAddr::new(ip, number), node });
            }
        }
        Err(Status::unavailable(format!("no endpoints available for service {text:?}")))
    }
}

/// An address of Endpoints and its node, if it is that of a pod in the namespace: others could lead anywhere. `pods`
/// are those that were looked at before.
fn of_a_pod<'a>(
    snapshot: &Snapshot,
    namespace: &str,
    address: &'a Value,
    pods: &mut HashMap<&'a str, PodPlace>,
) -> Option<(IpAddr, String)> {
    let target = &address["targetRef"];
    let name = target["name"].as_str().filter(|_| target["namespace"] == namespace)?;
    let read = || object(snapshot, "pods", namespace, name).map(|pod| PodPlace::of(&pod)).unwrap_or_default();
    let pod = pods.entry(name).or_insert_with(read);
    let ip = ip(&address["ip"])?;
    pod.ips.contains(&ip).then(|| (ip, pod.node.clone()))
}

/// The name of the Service's port with this number.
fn port_name(service: &Value, number: i64) -> Option<String> {
    let port = items(&service["spec"]["ports"]).find(|port| port["port"] == number)?;
    Some(port["name"].as_str().unwrap_or_default().to_owned())
}

fn object(snapshot: &Snapshot, resource: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let key = format!("{namespace}/{name}");
    let object =
        snapshot.get(resource, &key).ok_or_else(|| Status::not_found(Subject { group: "", resource, name }))?;
    serde_json::from_slice(&object.json()).map_err(|error| Status::internal(format!("{resource} {key:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        encode,
        store::{EventType, Key, Object},
    };

    fn snapshot(objects: &[(&str, &str, Value)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (resource, name, object) in objects {
            let mut object = object.clone();
            object["metadata"] = json!({"namespace": "a", "name": name});
            let object = Arc::new(Object::new(encode::unserved(&object), 1, EventType::Added));
            snapshot.load(Key { resource: (*resource).into(), name: format!("a/{name}").into() }, object);
        }
        snapshot
    }

    fn pod(ip: &str) -> Value {
        let containers = json!([{"name": "x"}, {"name": "y", "ports": [{"containerPort": 8080}]}]);
        json!({"spec": {"nodeName": "n", "containers": containers},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}]}})
    }

    fn at(tls: bool, address: &str) -> Result<Destination, String> {
        Ok(Destination { tls, address: address.parse().unwrap(), node: "n".into() })
    }

    #[test]
    fn a_pod_is_named_with_scheme_and_port_or_without() {
        let snapshot = snapshot(&[("pods", "p", pod("10.0.0.7")), ("pods", "own", pod("127.0.0.1"))]);
        let of = |text| Destination::of_pod(&snapshot, "a", text).map_err(|status| status.message);
        assert_eq!(of("p"), at(false, "10.0.0.7:8080"));
        assert_eq!(of("p:81"), at(false, "10.0.0.7:81"));
        assert_eq!(of("https:p:443"), at(true, "10.0.0.7:443"));
        assert_eq!(of("http:p:"), at(false, "10.0.0.7:8080"));
        assert_eq!(of("q").unwrap_err(), "pods \"q\" not found");
        for bad in ["ftp:p:1", "a:b:c:d", ":1", ""] {
            assert_eq!(of(bad).unwrap_err(), format!("invalid pod request {bad:?}"));
        }
        assert_eq!(of("own").unwrap_err(), "address not allowed");
        assert!(of("p:http").unwrap_err().ends_with("lookup tcp/http: unknown port"));
        assert!(of("p:65536").unwrap_err().ends_with("unknown port"));
        let zeros = format!("p:{}80", "0".repeat(62));
        assert_eq!(of(&zeros).unwrap_err(), format!("invalid pod request {zeros:?}"));
    }

    #[test]
    fn a_pod_that_has_ended_leads_nowhere_for_its_address_may_be_anothers() {
        for phase in ["Succeeded", "Failed"] {
            let mut ended = pod("10.0.0.7");
            ended["status"]["phase"] = phase.into();
            let snapshot = snapshot(&[("pods", "p", ended)]);
            let found = Destination::of_pod(&snapshot, "a", "p");
            assert_eq!(found.unwrap_err().message, "address not allowed", "{phase}");
        }
        let mut mapped = pod("::ffff:10.0.0.7");
        mapped["status"]["phase"] = "Running".into();
        let snapshot = snapshot(&[("pods", "p", mapped)]);
        assert_eq!(Destination::of_pod(&snapshot, "a", "p").map_err(|_| String::new()), at(false, "10.0.0.7:8080"));
    }

    #[test]
    fn a_service_leads_to_a_ready_pod_behind_it_and_nowhere_else() {
        let address = |ip: &str, pod: &str, namespace: &str| json!({"ip": ip, "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace}});
        let endpoints = json!({"subsets": [
            {"addresses": [address("10.0.0.7", "p", "a"), address("10.0.0.9", "p", "a"), address("10.0.0.7", "p", "b"),
                json!({"ip": "10.0.0.8"}), address("127.0.0.1", "own", "a"), address("10.0.0.6", "gone", "a")],
             "notReadyAddresses": [address("10.0.0.5", "p", "a")],
             "ports": [{"name": "web", "port": 8080}, {"name": "admin", "port": 9090}]}]});
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]}});
        let snapshot = snapshot(&[
            ("pods", "p", pod("10.0.0.7")),
            ("pods", "own", pod("127.0.0.1")),
            ("services", "s", service.clone()),
            ("endpoints", "s", endpoints),
            ("services", "none", service),
            ("endpoints", "none", json!({})),
        ]);
        let of = |text| Destination::of_service(&snapshot, "a", text).map_err(|status| (status.code, status.message));
        let wrong = |code: u16, message: &str| Err((code, message.to_owned()));
        for _ in 0..20 {
            assert_eq!(of("s:80"), at(false, "10.0.0.7:8080").map_err(|_| (0, String::new())));
            assert_eq!(of("https:s:admin"), at(true, "10.0.0.7:9090").map_err(|_| (0, String::new())));
        }
        assert_eq!(of("s"), wrong(503, "no endpoints available for service \"s\""));
        assert_eq!(of("s:82"), wrong(503, "no service port 82 found for service \"s\""));
        assert_eq!(of("none:80"), wrong(503, "no endpoints available for service \"none\""));
        assert_eq!(of("x:80"), wrong(404, "services \"x\" not found"));
        assert_eq!(of("x"), wrong(404, "services \"x\" not found"));
        assert_eq!(of("a:b:c"), wrong(400, "invalid service request \"a:b:c\""));
    }
}
