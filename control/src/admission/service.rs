//! Which addresses and ports one Service takes and gives up by one write.

use std::{collections::HashMap, net::Ipv4Addr};

use serde_json::{Value, json};

use crate::{
    api::{Status, Subject},
    kinds::FieldError,
};

use super::{Allocations, Request, Reservation, Verb, cluster_ip::ClusterIpError, node_port::NodePortError};

/// Fills in the ClusterIP and the NodePorts that the Service needs and has not, and notes in `reservation` what it takes and
/// what of the old Service it gives up.
pub fn allocate(
    request: &Request,
    verb: Verb,
    object: &mut Value,
    reservation: &mut Reservation,
) -> Result<(), Status> {
    let before = request.old.map(held).unwrap_or_default();
    if verb == Verb::Delete {
        reservation.freed = if request.old.is_some() { before } else { held(object) };
        return Ok(());
    }
    let mut errors = Vec::new();
    cluster_ip(object, &before, reservation, &mut errors).map_err(full)?;
    node_ports(object, &before, reservation, &mut errors)?;
    if !errors.is_empty() {
        return Err(Status::invalid(Subject { group: "", resource: "Service", name: request.name }, &errors));
    }
    let now = held(object);
    reservation.freed.cluster_ips = before.cluster_ips.into_iter().filter(|ip| !now.cluster_ips.contains(ip)).collect();
    reservation.freed.node_ports = before.node_ports.into_iter().filter(|p| !now.node_ports.contains(p)).collect();
    Ok(())
}

/// What a stored Service holds.
pub(super) fn held(service: &Value) -> Allocations {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Allocations::default();
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
    Allocations { cluster_ips, node_ports }
}

fn cluster_ip(
    object: &mut Value,
    before: &Allocations,
    reservation: &mut Reservation,
    errors: &mut Vec<FieldError>,
) -> Result<(), ClusterIpError> {
    let spec = &mut object["spec"];
    if spec["type"] == "ExternalName" || spec["clusterIP"] == "None" || !spec.is_object() {
        return Ok(());
    }
    let pools = reservation.pools.clone();
    match spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()).map(str::to_owned) {
        None => {
            let ip = pools.cluster_ips.allocate_next()?;
            reservation.taken.cluster_ips.push(ip);
            spec["clusterIP"] = json!(ip);
            spec["clusterIPs"] = json!([ip]);
        }
        Some(asked) => match asked.parse::<Ipv4Addr>() {
            Ok(ip) if before.cluster_ips.contains(&ip) => {}
            Ok(ip) => match pools.cluster_ips.allocate(ip) {
                Ok(()) => reservation.taken.cluster_ips.push(ip),
                Err(error) => {
                    let why = format!("failed to allocate IP {ip}: {error}");
                    errors.push(FieldError::invalid("spec.clusterIPs", &json!([asked]), why));
                }
            },
            Err(_) => {
                let why = "must be a valid IP address, (e.g. 10.9.8.7)";
                errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!(asked), why));
            }
        },
    }
    Ok(())
}

fn node_ports(
    object: &mut Value,
    before: &Allocations,
    reservation: &mut Reservation,
    errors: &mut Vec<FieldError>,
) -> Result<(), Status> {
    let spec = &mut object["spec"];
    let balanced = spec["type"] == "LoadBalancer";
    if spec["type"] != "NodePort" && !balanced {
        return Ok(());
    }
    let automatic = !(balanced && spec["allocateLoadBalancerNodePorts"] == false);
    let local = balanced && spec["externalTrafficPolicy"] == "Local";
    // By the Service's port: TCP and UDP of one port share a NodePort unless told otherwise.
    let mut by_port: HashMap<i64, u16> = HashMap::new();
    let asked: Vec<(i64, i64)> = ports(spec).map(|p| (number(p, "port"), number(p, "nodePort"))).collect();
    for (i, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let (own, mut wanted) = asked[i];
        if wanted == 0 && !automatic {
            continue;
        }
        if wanted == 0 {
            let sibling = asked.iter().find(|(port, node_port)| *port == own && *node_port != 0);
            wanted = by_port.get(&own).map(|p| i64::from(*p)).or(sibling.map(|s| s.1)).unwrap_or(0);
        }
        let given = match wanted {
            0 => next_port(reservation)?,
            wanted => match claim(wanted, before, reservation) {
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
            0 => spec["healthCheckNodePort"] = next_port(reservation)?.into(),
            wanted => {
                if let Err(error) = claim(wanted, before, reservation) {
                    errors.push(FieldError::invalid("spec.healthCheckNodePort", &json!(wanted), error.to_string()));
                }
            }
        }
    }
    Ok(())
}

/// Takes a named port, unless this Service has it already.
fn claim(wanted: i64, before: &Allocations, reservation: &mut Reservation) -> Result<u16, NodePortError> {
    let own = before.node_ports.iter().chain(&reservation.taken.node_ports).find(|p| i64::from(**p) == wanted);
    if let Some(own) = own {
        return Ok(*own);
    }
    let port = reservation.pools.node_ports.allocate(wanted)?;
    reservation.taken.node_ports.push(port);
    Ok(port)
}

fn next_port(reservation: &mut Reservation) -> Result<u16, Status> {
    let port = reservation.pools.node_ports.allocate_next().map_err(|e| {
        Status::internal(format!("failed to allocate a nodePort: {e}; widen --service-node-port-range"))
    })?;
    reservation.taken.node_ports.push(port);
    Ok(port)
}

fn ports(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["ports"].as_array().into_iter().flatten()
}

fn number(object: &Value, field: &str) -> i64 {
    object[field].as_i64().unwrap_or_default()
}

fn full(error: ClusterIpError) -> Status {
    Status::internal(format!("failed to allocate a serviceIP: {error}; widen --service-cidr"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admission::{Admission, NamespaceState},
        auth::Identity,
        kinds::{Kind, service::KIND},
    };

    fn admission() -> Admission {
        Admission::new("10.96.0.0/24".parse().unwrap(), 30000..=30040)
    }

    fn write(
        admission: &Admission,
        verb: Verb,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, Status> {
        let identity = Identity { name: "test".into(), groups: Vec::new() };
        let request = Request {
            verb,
            kind: &Kind::from(&KIND),
            namespace: Some("default"),
            name: "web",
            subresource: None,
            old,
            identity: &identity,
            namespace_state: NamespaceState::Active,
        };
        admission.admit(&request, object)
    }

    fn create(admission: &Admission, spec: Value) -> Result<Value, Status> {
        let mut object = json!({"spec": spec});
        write(admission, Verb::Create, &mut object, None)?.commit();
        Ok(object)
    }

    fn node_port(port: i64) -> Value {
        json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": port}]})
    }

    #[test]
    fn a_service_gets_an_address_and_a_port_of_its_own() {
        let admission = admission();
        let a = create(&admission, node_port(0)).unwrap();
        let b = create(&admission, node_port(0)).unwrap();
        assert_ne!(a["spec"]["clusterIP"], b["spec"]["clusterIP"]);
        assert_eq!(a["spec"]["clusterIPs"][0], a["spec"]["clusterIP"]);
        assert_ne!(a["spec"]["ports"][0]["nodePort"], b["spec"]["ports"][0]["nodePort"]);
        let headless = create(&admission, json!({"type": "ClusterIP", "clusterIP": "None"})).unwrap();
        assert_eq!(headless["spec"]["clusterIP"], "None");
    }

    #[test]
    fn a_failed_write_gives_everything_back() {
        let admission = admission();
        let mut object = json!({"spec": node_port(30005)});
        object["spec"]["clusterIP"] = "10.96.0.50".into();
        drop(write(&admission, Verb::Create, &mut object, None).unwrap());
        let mut again = node_port(30005);
        again["clusterIP"] = "10.96.0.50".into();
        create(&admission, again.clone()).unwrap();
        let status = create(&admission, again).unwrap_err();
        assert_eq!(status.code, 422);
        assert!(
            status.message.contains("spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated")
        );
        assert!(status.message.contains("failed to allocate IP 10.96.0.50: provided IP is already allocated"));
        create(&admission, node_port(30006)).unwrap();
    }

    #[test]
    fn deletion_and_a_change_of_type_free_what_was_held() {
        let admission = admission();
        let mut old = create(&admission, node_port(30007)).unwrap();
        let mut plain = old.clone();
        plain["spec"]["type"] = "ClusterIP".into();
        plain["spec"]["ports"] = json!([{"port": 80, "protocol": "TCP"}]);
        write(&admission, Verb::Update, &mut plain, Some(&old)).unwrap().commit();
        old["spec"] = create(&admission, node_port(30007)).unwrap()["spec"].clone();
        let stored = old.clone();
        write(&admission, Verb::Delete, &mut old, Some(&stored)).unwrap().commit();
        create(&admission, node_port(30007)).unwrap();
    }

    #[test]
    fn an_update_keeps_its_own_and_takes_only_what_is_new() {
        let admission = admission();
        let old = create(&admission, node_port(30008)).unwrap();
        let mut new = old.clone();
        new["spec"]["ports"] = json!([{"port": 80, "nodePort": 30008}, {"port": 81, "nodePort": 30009}]);
        write(&admission, Verb::Update, &mut new, Some(&old)).unwrap().commit();
        assert!(create(&admission, node_port(30009)).is_err());
    }

    #[test]
    fn tcp_and_udp_of_one_port_share_a_node_port() {
        let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
        let object = create(&admission(), json!({"type": "NodePort", "ports": ports})).unwrap();
        assert_eq!(object["spec"]["ports"][0]["nodePort"], object["spec"]["ports"][1]["nodePort"]);
    }

    #[test]
    fn allocations_are_restored_from_stored_services() {
        let stored = create(&admission(), node_port(30010)).unwrap();
        let restarted = admission();
        restarted.restore([&stored]);
        assert!(create(&restarted, node_port(30010)).is_err());
        let mut same_ip = node_port(0);
        same_ip["clusterIP"] = stored["spec"]["clusterIP"].clone();
        assert!(create(&restarted, same_ip).is_err());
    }
}
