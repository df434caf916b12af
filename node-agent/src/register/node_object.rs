//! The Node object that says what this machine is and whether it is ready. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{conditions::Pressures, facts::MachineFacts};

/// Everything a Node object is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDescription {
    /// Of the object; certificates and pods name the node by it.
    pub name: String,
    /// The address `InternalIP` of its status.
    pub internal_ip: Ipv4Addr,
    /// What only this machine can know.
    pub facts: MachineFacts,
    /// Port of the agent's HTTPS server.
    pub agent_port: u16,
    /// Pods that this node takes at the most.
    pub max_pods: u32,
    /// `docker://20.10.24`
    pub runtime_version: String,
    /// What the conditions are made from.
    pub state: NodeState,
}

/// What the conditions say: each part's problem, `None` where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Resources that are short.
    pub pressures: Pressures,
    /// Why pods cannot be run.
    pub runtime: Option<String>,
    /// Why pods do not reach each other.
    pub network: Option<String>,
    /// Why Services are not served.
    pub datapath: Option<String>,
    /// Why the agent itself takes no pods: it starts, or it ends.
    pub ending: Option<String>,
}

impl NodeState {
    /// The agent does not run its pods, because of `message`.
    pub fn not_running(message: impl Into<String>) -> Self {
        Self { ending: Some(message.into()), ..Self::default() }
    }

    /// Why the node is not ready, in the kubelet's words where it has some; `None` when it is.
    pub fn not_ready_because(&self) -> Option<String> {
        let of = |what: &str, problem: &Option<String>| problem.as_ref().map(|problem| format!("{what}: {problem}"));
        let problems = [
            self.ending.clone(),
            of("container runtime is down", &self.runtime),
            of("container runtime network not ready", &self.network),
            of("Services are not served", &self.datapath),
        ];
        let problems: Vec<String> = problems.into_iter().flatten().collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

impl NodeDescription {
    /// Metadata and spec for the first registration.
    pub fn new_object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": self.labels()},
        })
    }

    /// Labels that this agent keeps on its Node, whatever else stands there.
    pub fn labels(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("kubernetes.io/hostname", self.name.clone()),
            ("kubernetes.io/os", "linux".to_owned()),
            ("kubernetes.io/arch", self.facts.architecture.clone()),
            ("beta.kubernetes.io/os", "linux".to_owned()),
            ("beta.kubernetes.io/arch", self.facts.architecture.clone()),
        ])
    }

    /// The status to be, given the conditions that stand in the API (for their transition times).
    pub fn status(&self, current_conditions: &[Value], now: Timestamp) -> Value {
        let resources = json!({
            "cpu": self.facts.cpus.to_string(),
            "memory": format!("{}Ki", self.facts.memory_kib),
            "ephemeral-storage": format!("{}Ki", self.facts.storage_bytes / 1024),
            "pods": self.max_pods.to_string(),
        });
        json!({
            "addresses": [
                {"type": "InternalIP", "address": self.internal_ip.to_string()},
                {"type": "Hostname", "address": self.facts.hostname},
            ],
            "capacity": resources,
            "allocatable": resources,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.agent_port}},
            "nodeInfo": {
                "machineID": self.facts.machine_id,
                "systemUUID": self.facts.machine_id,
                "bootID": self.facts.boot_id,
                "kernelVersion": self.facts.kernel_version,
                "osImage": self.facts.os_image,
                "containerRuntimeVersion": self.runtime_version,
                "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION"), "+fairlead"),
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": self.facts.architecture,
            },
            "conditions": self.conditions(current_conditions, now),
        })
    }

    fn conditions(&self, current: &[Value], now: Timestamp) -> Vec<Value> {
        let Pressures { memory, disk, pids } = &self.state.pressures;
        let not_ready = self.state.not_ready_because();
        let ready = match &not_ready {
            None => Condition("Ready", "True", "KubeletReady", "fairlead node agent is ready"),
            Some(message) => Condition("Ready", "False", "KubeletNotReady", message),
        };
        let conditions = [
            pressure(
                "MemoryPressure",
                memory,
                "KubeletHasInsufficientMemory",
                ["KubeletHasSufficientMemory", "node agent has sufficient memory available"],
            ),
            pressure(
                "DiskPressure",
                disk,
                "KubeletHasDiskPressure",
                ["KubeletHasNoDiskPressure", "node agent has no disk pressure"],
            ),
            pressure(
                "PIDPressure",
                pids,
                "KubeletHasInsufficientPID",
                ["KubeletHasSufficientPID", "node agent has sufficient PID available"],
            ),
            pressure(
                "NetworkUnavailable",
                &self.state.network,
                "PodNetworkNotReady",
                ["PodNetworkReady", "the pod network of this node is set up"],
            ),
            ready,
        ];
        conditions.map(|condition| condition.to_json(current, now)).to_vec()
    }
}

/// Type, status, reason and message.
struct Condition<'a>(&'static str, &'static str, &'static str, &'a str);

/// A condition that is `True` when something is wrong.
fn pressure<'a>(
    kind: &'static str,
    problem: &'a Option<String>,
    bad_reason: &'static str,
    [good_reason, good_message]: [&'static str; 2],
) -> Condition<'a> {
    match problem {
        Some(message) => Condition(kind, "True", bad_reason, message),
        None => Condition(kind, "False", good_reason, good_message),
    }
}

impl Condition<'_> {
    /// Keeps the transition time of `current` where the status is the same.
    fn to_json(&self, current: &[Value], now: Timestamp) -> Value {
        let Self(kind, status, reason, message) = self;
        let old = current.iter().find(|old| old["type"] == *kind && old["status"] == *status);
        let since = old.and_then(|condition| condition["lastTransitionTime"].as_str()).map(str::to_owned);
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": rfc3339_seconds(now),
            "lastTransitionTime": since.unwrap_or_else(|| rfc3339_seconds(now))})
    }
}

/// `metav1.Time`: RFC 3339 in whole seconds.
fn rfc3339_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: NodeState) -> NodeDescription {
        NodeDescription {
            name: "a".into(),
            internal_ip: Ipv4Addr::new(10, 0, 0, 1),
            facts: MachineFacts { cpus: 2, memory_kib: 1024, hostname: "a".into(), ..Default::default() },
            agent_port: 10250,
            max_pods: 110,
            runtime_version: "docker://20.10.24".into(),
            state,
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// Status, reason and message of one condition.
    fn condition(state: NodeState, kind: &str) -> [String; 3] {
        let status = node(state).status(&[], at("2026-01-01T00:00:00Z"));
        let conditions = status["conditions"].as_array().expect("conditions");
        let found = conditions.iter().find(|condition| condition["type"] == kind).expect("the condition");
        ["status", "reason", "message"].map(|field| found[field].as_str().expect("text").to_owned())
    }

    #[test]
    fn a_condition_keeps_its_transition_time_until_its_status_changes() {
        let (early, late) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:05:00Z"));
        let first = node(NodeState::default()).status(&[], early);
        let conditions = first["conditions"].as_array().expect("conditions").clone();
        let second = node(NodeState::default()).status(&conditions, late);
        assert_eq!(second["conditions"][4]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(second["conditions"][4]["lastHeartbeatTime"], "2026-01-01T00:05:00Z");
        let third = node(NodeState::not_running("the agent is starting")).status(&conditions, late);
        assert_eq!(third["conditions"][4]["lastTransitionTime"], "2026-01-01T00:05:00Z");
        assert_eq!(third["conditions"][4]["message"], "the agent is starting");
    }

    #[test]
    fn a_dead_runtime_makes_the_node_not_ready_and_says_why() {
        let state = NodeState { runtime: Some("docker cannot be reached".into()), ..NodeState::default() };
        let expected = ["False", "KubeletNotReady", "container runtime is down: docker cannot be reached"];
        assert_eq!(condition(state, "Ready"), expected);
        assert_eq!(condition(NodeState::default(), "Ready")[0], "True");
    }

    #[test]
    fn what_is_short_is_a_pressure_of_its_own_and_leaves_the_node_ready() {
        let pressures = Pressures { disk: Some("nodefs.available is low".into()), ..Pressures::default() };
        let state = NodeState { pressures, ..NodeState::default() };
        let expected = ["True", "KubeletHasDiskPressure", "nodefs.available is low"];
        assert_eq!(condition(state.clone(), "DiskPressure"), expected);
        assert_eq!(condition(state.clone(), "MemoryPressure")[0], "False");
        assert_eq!(condition(state, "Ready")[0], "True");
    }

    #[test]
    fn a_pod_network_that_is_incomplete_is_unavailable_and_the_node_not_ready() {
        let state = NodeState { network: Some("routes to other nodes: no link".into()), ..NodeState::default() };
        assert_eq!(condition(state.clone(), "NetworkUnavailable")[0], "True");
        assert_eq!(condition(state, "Ready")[0], "False");
        assert_eq!(condition(NodeState::default(), "NetworkUnavailable")[..2], ["False", "PodNetworkReady"]);
    }
}
