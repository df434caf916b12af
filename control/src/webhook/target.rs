//! Which address a call of a webhook goes to: that of its URL, or a ready endpoint of its Service.

use std::net::IpAddr;

use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::store::Snapshot;

/// What a webhook's configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookTarget {
    /// By its URL; 443 where that has no port.
    Host {
        /// A name, or an address without brackets.
        host: String,
        /// As the URL says it.
        port: Option<u16>,
    },
    /// By a Service of the cluster.
    Service {
        /// Of the Service.
        namespace: String,
        /// Of the Service.
        name: String,
        /// Of the Service, not of its pods.
        port: u16,
    },
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Ip(IpAddr, u16),
    /// A name that is to be looked up, and a port.
    Name(String, u16),
}

/// Why a Service leads nowhere. The words are those of `k8s.io/apiserver/pkg/util/proxy`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It does not exist.
    #[error("service {name:?} not found")]
    NoService { name: String },
    /// It does not have the port.
    #[error("no service port {port} found for service {name:?}")]
    NoPort { name: String, port: u16 },
    /// None of its endpoints is ready.
    #[error("no endpoints available for service {name:?}")]
    NoEndpoints { name: String },
    /// What the store has cannot be read.
    #[error("cannot read service {name:?}")]
    Unreadable { name: String },
}

impl WebhookTarget {
    /// Whom the certificate must name.
    pub fn server_name(&self) -> String {
        match self {
            Self::Host { host, .. } => host.clone(),
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    /// Host and port, as a URL has them.
    pub fn authority(&self) -> String {
        match self {
            Self::Host { host, port } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
            }
            Self::Service { port, .. } => format!("{}:{port}", self.server_name()),
        }
    }

    /// Where a call goes now. One of several ready endpoints is picked by chance.
    pub fn address(&self, snapshot: &Snapshot) -> Result<Address, ResolveError> {
        match self {
            Self::Host { host, port } => Ok(named(host, port.unwrap_or(443))),
            Self::Service { namespace, name, port } => of_service(snapshot, namespace, name, *port),
        }
    }
}

fn named(host: &str, port: u16) -> Address {
    host.parse().map_or_else(|_| Address::Name(host.to_owned(), port), |ip| Address::Ip(ip, port))
}

fn of_service(snapshot: &Snapshot, namespace: &str, name: &str, port: u16) -> Result<Address, ResolveError> {
    let name_of = || name.to_owned();
    let object = snapshot.get("services", &format!("{namespace}/{name}"));
    let object = object.ok_or_else(|| ResolveError::NoService { name: name_of() })?;
    let service: Value =
        serde_json::from_slice(&object.json()).map_err(|_| ResolveError::Unreadable { name: name_of() })?;
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Ok(named(spec["externalName"].as_str().unwrap_or_default(), port));
    }
    let service_port = spec["ports"].as_array().into_iter().flatten().find(|one| one["port"] == port);
    let service_port = service_port.ok_or_else(|| ResolveError::NoPort { name: name_of(), port })?;
    let ready = ready_endpoints(snapshot, namespace, name, service_port["name"].as_str().unwrap_or_default());
    let picked = ready.choose(&mut rand::rng()).copied();
    picked.map(|(ip, port)| Address::Ip(ip, port)).ok_or_else(|| ResolveError::NoEndpoints { name: name_of() })
}

/// All ready endpoints of a Service behind the port with this name.
fn ready_endpoints(snapshot: &Snapshot, namespace: &str, name: &str, port_name: &str) -> Vec<(IpAddr, u16)> {
    let prefix = format!("{namespace}/");
    let slices = snapshot.list("endpointslices.discovery.k8s.io", &prefix, None);
    let own = slices.filter(|(_, slice)| slice.header().label("kubernetes.io/service-name") == Some(name));
    let mut found = Vec::new();
    for (_, slice) in own {
        let Ok(slice) = serde_json::from_slice::<Value>(&slice.json()) else { continue };
        let ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports.filter(|port| port["name"].as_str().unwrap_or_default() == port_name);
        let Some(port) = port.filter_map(|port| u16::try_from(port["port"].as_u64()?).ok()).next() else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"] == false {
                continue;
            }
            let address = endpoint["addresses"][0].as_str().and_then(|address| address.parse().ok());
            found.extend(address.map(|address: IpAddr| (address, port)));
        }
    }
    found
}

/// Whether an address leads to this machine or its link, whichever machine that is.
pub fn is_own(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast()
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast(),
    }
}
