//! The legacy Endpoints object of every Service with a selector.

use std::{collections::BTreeMap, sync::Arc};

use fairlead_client::Api;
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Client,
    api::{DeleteParams, PostParams, Preconditions},
};

use super::{
    Context,
    endpoint_slice::{
        endpoints::{addresses, families, hostname, is_headless, publishes_not_ready, selector, target},
        pods_of,
        ports::{self, Port},
        services_of,
    },
};
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks, api_code, is_gone_or_taken, is_namespace_terminating},
    objects::pod_state::{is_finished, is_ready, is_terminating, node_name},
};

const COMPONENT: &str = "endpoint-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses in one object; the rest is left to EndpointSlices.
const CAPACITY: usize = 1000;

struct Controller {
    client: Client,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    endpoints: Arc<Informer<Endpoints>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        services: informers.services.clone(),
        pods: informers.pods.clone(),
        endpoints: informers.endpoints.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on_each(&informers.services)
        .on(&informers.pods, |this, change, queue| {
            services_of(&this.services, change).into_iter().for_each(|service| queue.add(service));
        })
        .on(&informers.endpoints, |this, change, queue| {
            if this.services.get(&change.key).is_some_and(|service| selector(&service).is_some()) {
                queue.add(change.key.clone());
            }
        })
        .start(tasks, 8, Controller::reconcile);
}

type ByAddress = BTreeMap<String, EndpointAddress>;

/// The Endpoints of `service`, from the pods it selects.
fn desired<'p>(service: &Service, pods: impl Iterator<Item = &'p Pod>) -> Endpoints {
    let publish = publishes_not_ready(service);
    let family = families(service).into_iter().next().unwrap_or_else(|| "IPv4".into());
    let mut groups: BTreeMap<Vec<Port>, (ByAddress, ByAddress)> = BTreeMap::new();
    let mut room = CAPACITY;
    let mut truncated = false;
    for pod in pods.filter(|pod| !is_finished(pod) && (publish || !is_terminating(pod))) {
        let Some(ip) = addresses(pod, &family).into_iter().next() else { continue };
        if room == 0 {
            truncated = true;
            break;
        }
        room -= 1;
        let address = EndpointAddress {
            ip: ip.clone(),
            hostname: hostname(service, pod),
            node_name: node_name(pod).map(str::to_owned),
            target_ref: Some(target(pod)),
        };
        let (ready, not_ready) = groups.entry(ports::of_pod(service, pod)).or_default();
        if publish || is_ready(pod) {
            ready.insert(ip, address)
        } else {
            not_ready.insert(ip, address)
        };
    }
    let headless = is_headless(service);
    // A pod without any of the ports is no endpoint, unless the Service is about names alone.
    let subsets = groups.into_iter().filter(|(ports, _)| !ports.is_empty() || headless);
    let subsets: Vec<EndpointSubset> =
        subsets.map(|(ports, (ready, not_ready))| subset(&ports, ready, not_ready)).collect();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if headless {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), COMPONENT.into());
    let annotations = truncated.then(|| BTreeMap::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())]));
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations,
            ..Default::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn subset(
    ports: &[Port],
    ready: BTreeMap<String, EndpointAddress>,
    not_ready: BTreeMap<String, EndpointAddress>,
) -> EndpointSubset {
    let list = |addresses: BTreeMap<String, EndpointAddress>| {
        (!addresses.is_empty()).then(|| addresses.into_values().collect::<Vec<_>>())
    };
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|port| EndpointPort {
            name: (!port.name.is_empty()).then(|| port.name.clone()),
            port: port.port.unwrap_or(0),
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    EndpointSubset {
        addresses: list(ready),
        not_ready_addresses: list(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

/// Whether `standing` equals `wanted` in all that this controller writes.
fn matches(standing: &Endpoints, wanted: &Endpoints) -> bool {
    let truncated = |e: &Endpoints| e.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY)).cloned();
    standing.subsets.as_deref().unwrap_or_default() == wanted.subsets.as_deref().unwrap_or_default()
        && standing.metadata.labels == wanted.metadata.labels
        && truncated(standing) == truncated(wanted)
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let standing = self.endpoints.get(&key);
        let Some(service) = self.services.get(&key) else {
            // Endpoints are deleted with their Service, whoever wrote them.
            return match standing {
                Some(standing) => delete(&api, &standing).await,
                None => Ok(Outcome::Done),
            };
        };
        if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let pods = pods_of(&service, &self.pods);
        let mut wanted = desired(&service, pods.iter().map(|pod| &**pod));
        let result = match standing {
            Some(standing) if matches(&standing, &wanted) => return Ok(Outcome::Done),
            Some(standing) => {
                wanted.metadata.resource_version = standing.metadata.resource_version.clone();
                // Without it, what was deleted meanwhile would be created.
                wanted.metadata.uid = standing.metadata.uid.clone();
                api.replace(&key.name, &PostParams::default(), &wanted).await
            }
            None => api.create(&PostParams::default(), &wanted).await,
        };
        match result {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_namespace_terminating(&error) || api_code(&error) == Some(404) => Ok(Outcome::Done),
            Err(error) => Err(Failure::request("write Endpoints")(error)),
        }
    }
}

async fn delete(api: &Api<Endpoints>, standing: &Endpoints) -> Result<Outcome, Failure> {
    let preconditions = Preconditions { uid: standing.metadata.uid.clone(), resource_version: None };
    let name = standing.metadata.name.as_deref().unwrap_or_default();
    match api.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
        Err(error) => Err(Failure::request("delete Endpoints")(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
            .expect("a valid service")
    }

    fn pod(name: &str, ip: &str, ready: &str, terminating: bool) -> Pod {
        let mut pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": []},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}});
        if terminating {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).expect("a valid pod")
    }

    fn ips(addresses: &Option<Vec<EndpointAddress>>) -> Vec<&str> {
        addresses.iter().flatten().map(|a| a.ip.as_str()).collect()
    }

    #[test]
    fn ready_and_not_ready_pods_are_separated_and_terminating_ones_left_out() {
        let pods = [
            pod("b", "10.0.0.2", "True", false),
            pod("a", "10.0.0.1", "True", false),
            pod("c", "10.0.0.3", "False", false),
            pod("d", "10.0.0.4", "True", true),
        ];
        let endpoints = desired(&service(json!({"ports": [{"port": 80}]})), pods.iter());
        let subsets = endpoints.subsets.as_deref().unwrap_or_default();
        assert_eq!(subsets.len(), 1);
        assert_eq!(ips(&subsets[0].addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.0.0.3"]);
        assert!(matches(&endpoints, &desired(&service(json!({"ports": [{"port": 80}]})), pods.iter())));
    }

    #[test]
    fn more_than_a_thousand_addresses_are_cut_and_marked() {
        let pods: Vec<Pod> =
            (0..1001).map(|n| pod(&n.to_string(), &format!("10.0.{}.{}", n / 256, n % 256), "True", false)).collect();
        let endpoints = desired(&service(json!({"ports": [{"port": 80}]})), pods.iter());
        assert_eq!(endpoints.subsets.map(|s| ips(&s[0].addresses).len()), Some(1000));
        assert!(endpoints.metadata.annotations.is_some_and(|a| a[OVER_CAPACITY] == "truncated"));
    }
}
