//! EndpointSlices from Endpoints that someone wrote by hand for a Service without selector.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{EndpointAddress, Endpoints, Service},
    discovery::v1::{Endpoint, EndpointConditions},
};

use super::{
    Context,
    endpoint_slice::{
        endpoints::EndpointGroup,
        ports::Port,
        slice_writer::{SUPERSEDED_AFTER, SliceWriter},
        slices::{self, Frame},
    },
};
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks},
    objects::owners::controller_reference,
};

const COMPONENT: &str = "endpointslicemirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are a lock, not endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints object itself.
const OWN: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];
/// Most addresses of one subset that are mirrored.
const MAX_PER_SUBSET: usize = 1000;

struct Controller {
    services: Arc<Informer<Service>>,
    endpoints: Arc<Informer<Endpoints>>,
    slices: SliceWriter,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        services: informers.services.clone(),
        endpoints: informers.endpoints.clone(),
        slices: SliceWriter::new(MANAGER, context.client.clone(), informers.endpoint_slices.clone()),
    };
    Startup::new(COMPONENT, controller)
        .on_each(&informers.endpoints)
        .on_each(&informers.services)
        .on(&informers.endpoint_slices, |this, change, queue| this.slices.changed(change, queue))
        .start(tasks, 4, Controller::reconcile);
}

/// Whether these Endpoints list a Service's backends and nobody else writes its slices.
fn is_mirrored(service: &Service, endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|value| value == "true");
    let lock = meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    let selected = service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    !skipped && !lock && !selected && meta.deletion_timestamp.is_none()
}

/// The endpoints that the subsets name.
fn desired(endpoints: &Endpoints) -> BTreeMap<EndpointGroup, Vec<Endpoint>> {
    let mut groups: BTreeMap<EndpointGroup, Vec<Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut ports: Vec<Port> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: Some(port.port),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        ports.sort();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(not_ready).take(MAX_PER_SUBSET) {
            let address_type = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            let group = EndpointGroup { address_type: address_type.into(), ports: ports.clone() };
            groups.entry(group).or_default().push(endpoint(address, ready));
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

impl Controller {
    fn frame(&self, endpoints: &Endpoints, key: &Key) -> Frame {
        let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
        annotations.retain(|name, _| !OWN.contains(&name.as_str()));
        Frame {
            namespace: key.namespace.clone(),
            service: key.name.clone(),
            labels: self.slices.labels(key, endpoints.metadata.labels.clone()),
            annotations,
            owner: controller_reference(endpoints),
            placeholders: Vec::new(),
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(standing) = self.slices.standing(&key) else { return Ok(Outcome::After(SUPERSEDED_AFTER)) };
        let pair = self.services.get(&key).zip(self.endpoints.get(&key));
        let plan = match pair.filter(|(service, endpoints)| is_mirrored(service, endpoints)) {
            Some((_, endpoints)) => slices::plan(&self.frame(&endpoints, &key), desired(&endpoints), &standing),
            None => slices::SlicePlan { delete: standing, ..Default::default() },
        };
        self.slices.carry_out(&key, plan).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_address_of_every_subset_becomes_an_endpoint_of_its_family_and_ports() {
        let endpoints: Endpoints = serde_json::from_value(json!({"subsets": [
            {"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
                "ports": [{"port": 9376}]}]}))
        .expect("valid endpoints");
        let groups = desired(&endpoints);
        let told: Vec<_> = groups
            .iter()
            .map(|(group, endpoints)| {
                let ready =
                    endpoints.iter().map(|e| (e.addresses[0].as_str(), e.conditions.as_ref().and_then(|c| c.ready)));
                (group.address_type.as_str(), ready.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(told[0], ("IPv4", vec![("192.0.2.1", Some(true)), ("192.0.2.2", Some(false))]));
        assert_eq!(told[1], ("IPv6", vec![("2001:db8::1", Some(true))]));
    }

    #[test]
    fn selected_services_locks_and_opted_out_endpoints_are_not_mirrored() {
        let service =
            |selector| serde_json::from_value(json!({"spec": {"selector": selector}})).expect("a valid service");
        let endpoints = |meta| serde_json::from_value(json!({"metadata": meta})).expect("valid endpoints");
        assert!(is_mirrored(&service(json!({})), &endpoints(json!({}))));
        assert!(!is_mirrored(&service(json!({"a": "b"})), &endpoints(json!({}))));
        assert!(!is_mirrored(&service(json!({})), &endpoints(json!({"labels": {SKIP: "true"}}))));
        assert!(!is_mirrored(&service(json!({})), &endpoints(json!({"annotations": {LEADER: "x"}}))));
    }
}
