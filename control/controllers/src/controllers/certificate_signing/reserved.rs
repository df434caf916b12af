//! Names and addresses that a node gets no serving certificate for, though its Node claims them: a pure function of
//! the cluster.
//!
//! A Node's status is what its agent says of itself, and no proof. Clients trust whoever answers at an address with a
//! certificate of this authority, so none is given for what is the control service's or another node's.

use std::{net::IpAddr, sync::Arc};

use ipnetwork::{IpNetwork, Ipv4Network};
use k8s_openapi::api::core::v1::Node;

use fairlead_pki::ServingNames;

/// What the control service is reached by, and what belongs to Services.
#[derive(Clone, Debug)]
pub struct ControlNames {
    /// Those of the API's own certificate.
    pub serving: ServingNames,
    /// ClusterIPs come from here.
    pub service_cidr: Ipv4Network,
    /// DNS suffix of the cluster, without dots at its ends.
    pub cluster_domain: String,
    /// The kernel's boot ID of this host, by which a node on the same host is known. Only such a node may share the
    /// host's name and addresses. Where two Nodes say the ID, one of them repeats what it read off the other, and
    /// neither is believed; where no Node of this host says it, no other can know it.
    pub boot_id: String,
}

impl ControlNames {
    /// Those of `dns_names` and `addresses` that are the control service's or no host's, for `node` among `nodes`.
    pub fn reserved(
        &self,
        dns_names: &[String],
        addresses: &[IpAddr],
        node: Option<&Node>,
        nodes: &[Arc<Node>],
    ) -> Vec<String> {
        let is_here = node.is_some_and(|node| self.is_here(node, nodes));
        let names = dns_names.iter().filter(|name| {
            let name = comparable(name);
            self.is_of_a_service(&name) || !is_here && self.serving.dns_names.iter().any(|own| comparable(own) == name)
        });
        let addresses = addresses.iter().filter(|ip| {
            let ip = ip.to_canonical();
            let is_of_service = matches!(ip, IpAddr::V4(ip) if self.service_cidr.contains(ip));
            let is_of_control = ip.is_loopback() || self.serving.addresses.contains(&ip);
            ip.is_unspecified() || ip.is_multicast() || is_of_service || is_of_control && !is_here
        });
        names.cloned().chain(addresses.map(ToString::to_string)).collect()
    }

    fn is_here(&self, node: &Node, nodes: &[Arc<Node>]) -> bool {
        let mut others = nodes.iter().filter(|other| other.metadata.name != node.metadata.name);
        self.has_boot_id(node) && !others.any(|other| self.has_boot_id(other))
    }

    fn has_boot_id(&self, node: &Node) -> bool {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        !self.boot_id.is_empty() && info.is_some_and(|info| info.boot_id == self.boot_id)
    }

    /// Those of the Service `kubernetes`, of any other, and wildcards.
    fn is_of_a_service(&self, name: &str) -> bool {
        let within = |domain: &str| name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        name == "kubernetes"
            || name.starts_with("kubernetes.")
            || name.contains('*')
            || within("svc")
            || within(&comparable(&self.cluster_domain))
    }
}

/// Those of `dns_names` and `addresses` that another Node or its pods have too, with its name. The node's own name is
/// nobody else's, whatever others claim: its client certificate says it.
pub fn of_other_nodes(own: &str, dns_names: &[String], addresses: &[IpAddr], nodes: &[Arc<Node>]) -> Vec<String> {
    let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
    let others: Vec<_> = nodes.iter().filter(|node| name(node) != own).collect();
    let holder = |has: &dyn Fn(&Node) -> bool| others.iter().find(|node| has(node)).map(|node| name(node));
    let names = dns_names.iter().filter(|dns| *dns != own).filter_map(|dns| {
        let wanted = comparable(dns);
        let has = |node: &Node| {
            comparable(&name(node)) == wanted || listed(node, DNS_TYPES).any(|text| comparable(text) == wanted)
        };
        holder(&has).map(|other| format!("{dns} (of node {other})"))
    });
    let addresses = addresses.iter().filter_map(|ip| {
        let has = |node: &Node| has_address(node, *ip) || has_pod_address(node, *ip);
        holder(&has).map(|other| format!("{ip} (of node {other})"))
    });
    names.chain(addresses).collect()
}

/// Whether `node` lists `ip` as its own.
pub fn has_address(node: &Node, ip: IpAddr) -> bool {
    let same = |text: &str| text.parse::<IpAddr>().is_ok_and(|listed| listed.to_canonical() == ip.to_canonical());
    listed(node, &["InternalIP", "ExternalIP"]).any(same)
}

/// Whether `ip` is in the subnet of `node`'s pods, which the control service chose.
fn has_pod_address(node: &Node, ip: IpAddr) -> bool {
    let spec = node.spec.iter();
    let mut subnets = spec.flat_map(|spec| spec.pod_cidr.iter().chain(spec.pod_cidrs.iter().flatten()));
    subnets.any(|text| text.parse::<IpNetwork>().is_ok_and(|subnet| subnet.contains(ip.to_canonical())))
}

/// Whether `node` lists `name` as its own.
pub fn has_name(node: &Node, name: &str) -> bool {
    listed(node, DNS_TYPES).any(|listed| listed == name)
}

const DNS_TYPES: &[&str] = &["Hostname", "InternalDNS", "ExternalDNS"];

fn listed<'a>(node: &'a Node, types: &[&str]) -> impl Iterator<Item = &'a str> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter(move |address| types.contains(&address.type_.as_str())).map(|address| address.address.as_str())
}

fn comparable(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
