//! Whether a node can take a pod, and if not, why: in Kubernetes' words, since people search for them.

use super::{
    node::{NodeInfo, NodeProperties},
    pod::Needs,
    rejection::{Plugin, Refusal},
    resources::Amount,
};
use crate::objects::taints::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNSCHEDULABLE, covers};

/// Checks `node` in Kubernetes' order; the first filter that refuses names its reasons.
pub fn refusals(needs: &Needs, node: &NodeInfo) -> Vec<Refusal> {
    if node.node.unschedulable && !tolerates_unschedulable(needs) {
        return vec![Refusal::new(Plugin::NodeUnschedulable, "node(s) were unschedulable")];
    }
    if let Some(taint) = untolerated(needs, &node.node) {
        let value = taint.value.as_deref().unwrap_or_default();
        let reason = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
        return vec![Refusal::new(Plugin::TaintToleration, reason)];
    }
    if !node.node.ready && !tolerates_not_ready(needs) {
        return vec![Refusal::new(Plugin::TaintToleration, "node(s) were not ready")];
    }
    if !needs.affinity.admits(&node.node.name, &node.node.labels) {
        return vec![Refusal::new(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector")];
    }
    if ports_taken(needs, node) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return vec![Refusal::new(Plugin::NodePorts, reason)];
    }
    insufficient(needs, node).into_iter().map(|reason| Refusal::new(Plugin::NodeResourcesFit, reason)).collect()
}

/// As [`refusals`], without the words.
pub fn fits(needs: &Needs, node: &NodeInfo) -> bool {
    (!node.node.unschedulable || tolerates_unschedulable(needs))
        && (node.node.ready || tolerates_not_ready(needs))
        && untolerated(needs, &node.node).is_none()
        && has_room(needs, node)
        && !ports_taken(needs, node)
        && needs.affinity.admits(&node.node.name, &node.node.labels)
}

/// Whether `node` refuses the pod whatever runs there: fewer pods would not help.
pub fn is_hopeless(needs: &Needs, node: &NodeInfo) -> bool {
    needs.requests.exceeds(&node.node.allocatable)
        || (node.node.unschedulable && !tolerates_unschedulable(needs))
        || untolerated(needs, &node.node).is_some()
        || (!node.node.ready && !tolerates_not_ready(needs))
        || !needs.affinity.admits(&node.node.name, &node.node.labels)
}

fn tolerates_unschedulable(needs: &Needs) -> bool {
    tolerates(needs, UNSCHEDULABLE)
}

/// A node that is not ready is tainted so a moment later.
fn tolerates_not_ready(needs: &Needs) -> bool {
    tolerates(needs, NOT_READY)
}

fn tolerates(needs: &Needs, key: &str) -> bool {
    let taint = k8s_openapi::api::core::v1::Taint { key: key.into(), effect: NO_SCHEDULE.into(), ..Default::default() };
    needs.tolerations.iter().any(|toleration| covers(toleration, &taint))
}

/// The first taint of a node that keeps the pod away.
pub fn untolerated<'n>(needs: &Needs, node: &'n NodeProperties) -> Option<&'n k8s_openapi::api::core::v1::Taint> {
    let hard = node.taints.iter().filter(|taint| taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE);
    hard.into_iter().find(|taint| !needs.tolerations.iter().any(|toleration| covers(toleration, taint)))
}

fn ports_taken(needs: &Needs, node: &NodeInfo) -> bool {
    needs.host_ports.iter().any(|port| node.host_ports.iter().any(|taken| port.conflicts_with(taken)))
}

fn has_room(needs: &Needs, node: &NodeInfo) -> bool {
    let (asked, has, taken) = (&needs.requests, &node.node.allocatable, &node.requested);
    let room = |asked: Amount, has: Amount, taken: Amount| asked == 0 || asked <= has - taken;
    node.pods < node.node.pods
        && room(asked.cpu_milli, has.cpu_milli, taken.cpu_milli)
        && room(asked.memory, has.memory, taken.memory)
        && room(asked.ephemeral_storage, has.ephemeral_storage, taken.ephemeral_storage)
        && asked.extended.iter().all(|(name, amount)| {
            let of = |map: &std::collections::BTreeMap<String, Amount>| map.get(name).copied().unwrap_or(0);
            room(*amount, of(&has.extended), of(&taken.extended))
        })
}

fn insufficient(needs: &Needs, node: &NodeInfo) -> Vec<String> {
    let (asked, has, taken) = (&needs.requests, &node.node.allocatable, &node.requested);
    let mut reasons = Vec::new();
    if node.pods >= node.node.pods {
        reasons.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, asked: Amount, has: Amount, taken: Amount| {
        if asked > 0 && asked > has - taken {
            reasons.push(format!("Insufficient {name}"));
        }
    };
    check("cpu", asked.cpu_milli, has.cpu_milli, taken.cpu_milli);
    check("memory", asked.memory, has.memory, taken.memory);
    check("ephemeral-storage", asked.ephemeral_storage, has.ephemeral_storage, taken.ephemeral_storage);
    for (name, amount) in &asked.extended {
        let of = |map: &std::collections::BTreeMap<String, Amount>| map.get(name).copied().unwrap_or(0);
        check(name, *amount, of(&has.extended), of(&taken.extended));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::scheduler::pod::PodInfo;

    fn node(spec: Value, ready: &str) -> NodeInfo {
        let node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"zone": "a"}}, "spec": spec,
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"},
                "conditions": [{"type": "Ready", "status": ready}]}}))
        .expect("a valid node");
        NodeInfo { node: NodeProperties::read(&node), ..Default::default() }
    }

    fn reasons(needs: &Needs, node: &NodeInfo) -> Vec<String> {
        refusals(needs, node).into_iter().map(|refusal| refusal.reason).collect()
    }

    fn needs(spec: Value) -> Needs {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
        for (key, value) in spec.as_object().expect("an object") {
            pod["spec"][key] = value.clone();
        }
        PodInfo::read(&serde_json::from_value(pod).expect("a valid pod")).needs
    }

    fn asking(cpu: &str, memory: &str) -> Needs {
        needs(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
    }

    #[test]
    fn every_refusal_is_told_in_the_words_of_kubernetes() {
        let plain = needs(json!({}));
        let cases = [
            (plain.clone(), node(json!({"unschedulable": true}), "True"), "node(s) were unschedulable"),
            (plain.clone(), node(json!({}), "False"), "node(s) were not ready"),
            (
                plain,
                node(json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}), "True"),
                "node(s) had untolerated taint {k: v}",
            ),
            (
                needs(json!({"nodeSelector": {"zone": "b"}})),
                node(json!({}), "True"),
                "node(s) didn't match Pod's node affinity/selector",
            ),
            (asking("2", "1Mi"), node(json!({}), "True"), "Insufficient cpu"),
            (asking("1m", "2Gi"), node(json!({}), "True"), "Insufficient memory"),
        ];
        for (needs, node, reason) in cases {
            assert_eq!(reasons(&needs, &node), [reason]);
            assert!(!fits(&needs, &node), "{reason}");
        }
        let everywhere = needs(json!({"tolerations": [{"operator": "Exists"}]}));
        assert!(fits(&everywhere, &node(json!({}), "False")), "as the pods of a network's DaemonSet");
        assert_eq!(reasons(&asking("2", "2Gi"), &node(json!({}), "True")), ["Insufficient cpu", "Insufficient memory"]);
    }

    #[test]
    fn ports_and_places_are_freed_when_a_pod_goes() {
        let mut node = node(json!({}), "True");
        let port = needs(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}));
        node.take(&port);
        assert_eq!(reasons(&port, &node), ["node(s) didn't have free ports for the requested pod ports"]);
        node.take(&asking("1", "1Gi"));
        assert_eq!(reasons(&needs(json!({})), &node), ["Too many pods"]);
        node.give_back(&port);
        assert!(fits(&needs(json!({})), &node));
        assert!(!fits(&asking("1m", "0"), &node));
        node.give_back(&asking("1", "1Gi"));
        assert!(fits(&port, &node) && fits(&asking("1", "1Gi"), &node));
    }
}
