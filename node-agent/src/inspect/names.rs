//! The JSON of a Service's names: pure functions of what the node's DNS server says.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::{
    dns::{NamedEndpoint, RecordSet, ServiceNames},
    world::{ObjectName, ServiceKind},
};

/// What DNS answers for one Service.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamesReport<'a> {
    /// The resourceVersion that answers reflect.
    revision: u64,
    /// The Service's own name first.
    records: Vec<RecordReport<'a>>,
    /// Endpoints of a headless Service that names lead to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<EndpointReport<'a>>,
    /// Endpoints of a headless Service that no name leads to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    excluded: Vec<EndpointReport<'a>>,
}

#[derive(Serialize)]
struct RecordReport<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Addresses, a name, or `HOST:PORT`; empty where the name does not exist.
    data: &'a [String],
}

#[derive(Serialize)]
struct EndpointReport<'a> {
    address: Ipv4Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl<'a> NamesReport<'a> {
    /// Reports `names` as JSON.
    pub fn of(names: &'a ServiceNames) -> Self {
        let (excluded, endpoints) =
            names.endpoints.iter().map(EndpointReport::of).partition(|end| end.reason.is_some());
        let records = names.records.iter().map(|RecordSet { name, kind, data }| RecordReport { name, kind, data });
        Self { revision: names.revision, records: records.collect(), endpoints, excluded }
    }
}

impl<'a> EndpointReport<'a> {
    fn of(endpoint: &'a NamedEndpoint) -> Self {
        Self {
            address: endpoint.address,
            pod: endpoint.pod.as_ref().map(ObjectName::to_string),
            node: endpoint.node.as_deref(),
            reason: endpoint.left_out.map(|reason| reason.to_string()),
        }
    }
}

/// A Service of names only gives the datapath nothing to do.
pub fn no_frontends_because(names: &ServiceNames) -> Option<&'static str> {
    match names.kind {
        ServiceKind::ClusterIp(_) => None,
        ServiceKind::Headless => Some("the Service is headless, its names lead to the endpoints themselves"),
        ServiceKind::ExternalName(_) => Some("the Service is a name alone, an alias of another"),
    }
}
