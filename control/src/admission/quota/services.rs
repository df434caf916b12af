//! What a Service takes of a quota.

use serde_json::Value;

use super::measure::Measure;
use crate::kinds::{
    quantity::Quantity,
    reading::{items, number, text},
};

const NAMES: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];

/// Whether a quota measures Services by `name`.
pub fn measures(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Node ports are counted before they are given: what counts is the intent.
pub fn measure(service: &Value) -> Measure {
    let spec = &service["spec"];
    let all = i64::try_from(items(&spec["ports"]).len()).unwrap_or(i64::MAX);
    let said = items(&spec["ports"]).filter(|port| number(port, "nodePort") != 0).count();
    let (node_ports, load_balancers) = match text(spec, "type") {
        "NodePort" => (all, 0),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] == false => {
            (i64::try_from(said).unwrap_or(i64::MAX), 1)
        }
        "LoadBalancer" => (all, 1),
        _ => (0, 0),
    };
    let amounts = [1, 1, node_ports, load_balancers].map(Quantity::of_units);
    let stored = NAMES.into_iter().map(str::to_owned).zip(amounts).collect();
    Measure { stored, ..Measure::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::amounts;

    #[test]
    fn a_service_takes_the_node_ports_that_it_will_get() {
        let ports = json!([{"port": 80}, {"port": 81, "nodePort": 30001}]);
        let of = |kind: &str, allocates: bool| {
            let spec = json!({"type": kind, "ports": ports, "allocateLoadBalancerNodePorts": allocates});
            let usage = measure(&json!({"spec": spec})).usage(0);
            amounts::text(&usage).replace("count/services=1,services=1,", "")
        };
        assert_eq!(of("ClusterIP", true), "services.loadbalancers=0,services.nodeports=0");
        assert_eq!(of("NodePort", true), "services.loadbalancers=0,services.nodeports=2");
        assert_eq!(of("LoadBalancer", true), "services.loadbalancers=1,services.nodeports=2");
        assert_eq!(of("LoadBalancer", false), "services.loadbalancers=1,services.nodeports=1");
    }
}
