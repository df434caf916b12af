//! An EndpointSlice as the datapath and DNS need it: parsed and valid. Slices of `addressType: IPv4`; others do not reach the World.

use std::{net::Ipv4Addr, sync::Arc};

use super::{ObjectName, Protocol};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Equal to the Service port's name.
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub addresses: Vec<Ipv4Addr>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub hostname: Option<Arc<str>>,
    pub node_name: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    /// Zones this endpoint should serve (`hints.forZones`); empty is all.
    pub for_zones: Vec<Arc<str>>,
    /// The Pod behind it, when its `targetRef` names one.
    pub pod: Option<ObjectName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub name: Arc<str>,
    pub service: ObjectName,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
    pub revision: u64,
}
