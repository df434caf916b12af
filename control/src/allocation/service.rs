//! Which addresses and ports one Service needs, and how they are filled in.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use serde_json::{Value, json};

use super::{
    cluster_ip::{ClusterIpError, ClusterIps},
    node_port::{NodePortError, NodePorts, PortHolder},
};
use crate::{
    kinds::FieldError,
    status::{Status, Subject},
};

/// The addresses and ports that a Service has, each list sorted and without repetition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocations {
    /// ClusterIPs.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// NodePorts, that of the health check among them.
    pub node_ports: Vec<u16>,
}

/// What a Service holds by its spec.
pub fn held(service: &Value) -> ServiceAllocations {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return ServiceAllocations::default();
    }
    let listed = spec["clusterIPs"].as_array().into_iter().flatten().chain([&spec["clusterIP"]]);
    let mut cluster_ips: Vec<Ipv4Addr> = listed.filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    cluster_ips.sort();
    cluster_ips.dedup();
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    let mut node_ports: Vec<u16> = ports
        .chain([&spec["healthCheckNodePort"]])
        .filter_map(|port| u16::try_from(port.as_i64()?).ok())
        .filter(|port| *port != 0)
        .collect();
    node_ports.sort_unstable();
    node_ports.dedup();
    ServiceAllocations { cluster_ips, node_ports }
}

/// Fills in what a Service needs.
pub struct ServiceAllocation<'a> {
    /// The addresses of Services.
    pub cluster_ips: &'a ClusterIps,
    /// The NodePorts.
    pub node_ports: &'a NodePorts,
    /// What the Service had before.
    pub before: &'a ServiceAllocations,
    /// Whether another has the address.
    pub is_ip_taken: &'a dyn Fn(Ipv4Addr) -> bool,
    /// Whether another has the port.
    pub is_port_taken: &'a dyn Fn(u16) -> bool,
    /// Who has it: costs more to say.
    pub port_holder: &'a dyn Fn(u16) -> Option<PortHolder>,
}

impl ServiceAllocation<'_> {
    /// Fills in the ClusterIP and the NodePorts that the Service needs and has not. Refuses those that it asks for and
    /// that are taken or outside their range.
    pub fn fill(&self, name: &str, service: &mut Value) -> Result<(), Status> {
        let mut errors = Vec::new();
        self.cluster_ip(service, &mut errors).map_err(|error| {
            Status::internal(format!("failed to allocate a serviceIP: {error}; widen --service-cidr"))
        })?;
        self.node_ports(service, &mut errors).map_err(|error| {
            Status::internal(format!("failed to allocate a nodePort: {error}; widen --service-node-port-range"))
        })?;
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(Subject { group: "", resource: "Service", name }, &errors))
    }

    fn cluster_ip(&self, object: &mut Value, errors: &mut Vec<FieldError>) -> Result<(), ClusterIpError> {
        let spec = &mut object["spec"];
        if spec["type"] == "ExternalName" || spec["clusterIP"] == "None" || !spec.is_object() {
            return Ok(());
        }
        match spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()).map(str::to_owned) {
            None => {
                let ip = self.cluster_ips.any_free(self.is_ip_taken)?;
                spec["clusterIP"] = json!(ip);
                spec["clusterIPs"] = json!([ip]);
            }
            Some(asked) => match asked.parse::<Ipv4Addr>() {
                Ok(ip) if self.before.cluster_ips.contains(&ip) => {}
                Ok(ip) => {
                    if let Err(error) = self.cluster_ips.check(ip, self.is_ip_taken) {
                        let why = format!("failed to allocate IP {ip}: {error}");
                        errors.push(FieldError::invalid("spec.clusterIPs", &json!([asked]), why));
                    }
                }
                Err(_) => {
                    let why = "must be a valid IP address, (e.g. 10.9.8.7)";
                    errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!(asked), why));
                }
            },
        }
        Ok(())
    }

    fn node_ports(&self, object: &mut Value, errors: &mut Vec<FieldError>) -> Result<(), NodePortError> {
        let spec = &mut object["spec"];
        let balanced = spec["type"] == "LoadBalancer";
        if spec["type"] != "NodePort" && !balanced {
            return Ok(());
        }
        let automatic = !(balanced && spec["allocateLoadBalancerNodePorts"] == false);
        let local = balanced && spec["externalTrafficPolicy"] == "Local";
        // Ports that this very write takes, by the Service's port: TCP and UDP of one port share a NodePort unless told
        // otherwise.
        let mut taken = Vec::new();
        let mut by_port: HashMap<i64, u16> = HashMap::new();
        let asked: Vec<(i64, i64)> = ports(spec).map(|p| (number(p, "port"), number(p, "nodePort"))).collect();
        let mut siblings: HashMap<i64, i64> = HashMap::new();
        for (port, node_port) in asked.iter().filter(|(_, node_port)| *node_port != 0) {
            siblings.entry(*port).or_insert(*node_port);
        }
        let asked_for: HashSet<i64> = asked.iter().map(|(_, node_port)| *node_port).collect();
        for (i, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            let (own, mut wanted) = asked[i];
            if wanted == 0 && !automatic {
                continue;
            }
            if wanted == 0 {
                let sibling = siblings.get(&own).copied();
                wanted = by_port.get(&own).map(|p| i64::from(*p)).or(sibling).unwrap_or(0);
            }
            let given = match wanted {
                0 => self.next_port(&mut taken, &asked_for)?,
                wanted => match self.claim(wanted, &mut taken) {
                    Ok(port) => port,
                    Err(error) => {
                        let path = format!("spec.ports[{i}].nodePort");
                        errors.push(FieldError::invalid(path, &json!(wanted), error.to_string()));
                        continue;
                    }
                },
            };
            by_port.entry(own).or_insert(given);
            port["nodePort"] = given.into();
        }
        if local {
            match number(spec, "healthCheckNodePort") {
                0 => spec["healthCheckNodePort"] = self.next_port(&mut taken, &asked_for)?.into(),
                wanted => {
                    if let Err(error) = self.claim(wanted, &mut taken) {
                        errors.push(FieldError::invalid("spec.healthCheckNodePort", &json!(wanted), error.to_string()));
                    }
                }
            }
        }
        Ok(())
    }

    /// A port that is asked for. The Service may have it already.
    fn claim(&self, wanted: i64, taken: &mut Vec<u16>) -> Result<u16, NodePortError> {
        let own = self.before.node_ports.iter().chain(&*taken).find(|port| i64::from(**port) == wanted);
        if let Some(own) = own {
            return Ok(*own);
        }
        let port = self.node_ports.check(wanted, self.port_holder)?;
        taken.push(port);
        Ok(port)
    }

    /// Any free port that this Service asks for nowhere else.
    fn next_port(&self, taken: &mut Vec<u16>, asked: &HashSet<i64>) -> Result<u16, NodePortError> {
        let port = self.node_ports.any_free(|port| {
            taken.contains(&port)
                || self.before.node_ports.contains(&port)
                || asked.contains(&i64::from(port))
                || (self.is_port_taken)(port)
        })?;
        taken.push(port);
        Ok(port)
    }
}

fn ports(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["ports"].as_array().into_iter().flatten()
}

fn number(object: &Value, field: &str) -> i64 {
    object[field].as_i64().unwrap_or_default()
}
