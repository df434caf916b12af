//! An EndpointSlice as the datapath and DNS need it: parsed and valid. Slices of `addressType: IPv4`; others do not
//! reach the World.

use std::{net::Ipv4Addr, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::{Deserialize, Serialize};

use super::{ObjectName, Protocol, revision_of, service::InvalidService};

/// A port of the slice's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    /// Equal to the Service port's name.
    pub name: Arc<str>,
    /// Together with the name it tells the slice's ports apart.
    pub protocol: Protocol,
    /// Where the endpoints listen: the pod's port, not the Service's.
    pub port: u16,
}

/// One endpoint, most often a pod. Fields are those of `discovery.k8s.io/v1`, with absent conditions filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// All of one endpoint: only the first is used, as by kube-proxy.
    pub addresses: Vec<Ipv4Addr>,
    /// `conditions.ready`, true where absent. Serving, and not terminating unless the Service publishes unready
    /// addresses.
    pub ready: bool,
    /// `conditions.serving`, `ready` where absent. Says whether it can answer, terminating or not.
    pub serving: bool,
    /// `conditions.terminating`, false where absent.
    pub terminating: bool,
    /// Its label below the Service's DNS name (`spec.hostname` of the pod).
    pub hostname: Option<Arc<str>>,
    /// Where it runs; traffic policy `Local` needs it.
    pub node_name: Option<Arc<str>>,
    /// `topology.kubernetes.io/zone` of its node.
    pub zone: Option<Arc<str>>,
    /// Zones this endpoint should serve (`hints.forZones`); empty is all.
    pub for_zones: Vec<Arc<str>>,
    /// The Pod behind it, when its `targetRef` names one.
    pub pod: Option<ObjectName>,
}

/// Endpoints of one Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Unique in the Service's namespace.
    pub name: Arc<str>,
    /// From the label `kubernetes.io/service-name`.
    pub service: ObjectName,
    /// Each holds for all endpoints of the slice.
    pub ports: Vec<SlicePort>,
    /// In the order of the object.
    pub endpoints: Vec<Endpoint>,
    /// When the change of a pod or Service happened that led to this version, where the controller says so.
    pub triggered_at: Option<Timestamp>,
    /// Its resourceVersion.
    pub revision: u64,
}

impl TryFrom<&discovery::EndpointSlice> for EndpointSlice {
    type Error = InvalidSlice;

    fn try_from(object: &discovery::EndpointSlice) -> Result<Self, InvalidSlice> {
        if object.address_type != "IPv4" {
            return Err(InvalidSlice::AddressType { value: object.address_type.clone() });
        }
        let namespace: Arc<str> = object.metadata.namespace.as_deref().unwrap_or_default().into();
        let labels = object.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)).ok_or(InvalidSlice::NoService)?;
        let ports = object.ports.iter().flatten().filter(|port| port.port.is_some()).map(SlicePort::parse);
        Ok(Self {
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            service: ObjectName::new(namespace.clone(), service.as_str()),
            ports: ports.collect::<Result<_, _>>()?,
            endpoints: object.endpoints.iter().map(|endpoint| Endpoint::parse(endpoint, &namespace)).collect(),
            triggered_at: object.metadata.annotations.as_ref().and_then(|all| all.get(TRIGGER_TIME)?.parse().ok()),
            revision: revision_of(&object.metadata),
        })
    }
}

/// RFC 3339 time, for the latency that `kubeproxy_network_programming_duration_seconds` measures.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Names the Service that a slice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl SlicePort {
    fn parse(port: &discovery::EndpointPort) -> Result<Self, InvalidSlice> {
        let value = port.port.unwrap_or_default();
        Ok(Self {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: u16::try_from(value).ok().filter(|p| *p != 0).ok_or(InvalidSlice::Port { value })?,
        })
    }
}

impl Endpoint {
    /// Absent conditions mean what the API says they mean: `ready` unknown is ready, `serving` follows `ready`,
    /// `terminating` unknown is not. Source: EndpointConditions in discovery.k8s.io/v1.
    fn parse(endpoint: &discovery::Endpoint, namespace: &Arc<str>) -> Self {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let hints = endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten());
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        Self {
            addresses: endpoint.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            hostname: endpoint.hostname.as_deref().map(Into::into),
            node_name: endpoint.node_name.as_deref().map(Into::into),
            zone: endpoint.zone.as_deref().map(Into::into),
            for_zones: hints.map(|zone| zone.name.as_str().into()).collect(),
            pod: target.and_then(|target| {
                let namespace = target.namespace.as_deref().map_or_else(|| namespace.clone(), Into::into);
                Some(ObjectName::new(namespace, target.name.as_deref()?))
            }),
        }
    }
}

/// Why an EndpointSlice of the API is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlice {
    /// IPv6, or host names: the datapath is IPv4.
    #[error("address type {value:?} is not IPv4")]
    AddressType {
        /// `addressType` of the slice.
        value: String,
    },
    /// The slice belongs to no Service.
    #[error("the label kubernetes.io/service-name is missing")]
    NoService,
    /// A number that no packet can carry.
    #[error("port {value} is not a port number from 1 to 65535")]
    Port {
        /// As the slice has it.
        value: i32,
    },
    /// None of the three that ports can have.
    #[error(transparent)]
    Protocol(#[from] InvalidService),
}

impl InvalidSlice {
    /// Slices that are meant for someone else and need no warning.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::AddressType { .. } | Self::NoService)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_conditions_mean_ready_serving_and_not_terminating() {
        let object: discovery::EndpointSlice = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"port": 8080}],
            "endpoints": [{"addresses": ["10.244.0.2"], "targetRef": {"kind": "Pod", "name": "web-a"}}]
        }))
        .expect("a slice");
        let slice = EndpointSlice::try_from(&object).expect("valid");
        let endpoint = &slice.endpoints[0];
        assert!(endpoint.ready && endpoint.serving && !endpoint.terminating);
        assert_eq!(endpoint.pod, Some(ObjectName::new("default", "web-a")));
        assert_eq!(slice.ports[0].protocol, Protocol::Tcp);
    }
}
