//! The Node object that says what this machine is and whether it is ready. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::facts::MachineFacts;

/// Everything a Node object is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDescription {
    pub name: String,
    pub internal_ip: Ipv4Addr,
    pub facts: MachineFacts,
    /// Port of the agent's HTTPS server.
    pub agent_port: u16,
    /// Pods that this node takes at the most.
    pub max_pods: u32,
    /// `docker://20.10.24`
    pub runtime_version: String,
    pub readiness: Readiness,
}

/// The `Ready` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    NotReady { message: String },
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
        let (ready, reason, message) = match &self.readiness {
            Readiness::Ready => ("True", "KubeletReady", "fairlead node agent is ready"),
            Readiness::NotReady { message } => ("False", "KubeletNotReady", message.as_str()),
        };
        [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory", "node agent has sufficient memory available"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "node agent has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "node agent has sufficient PID available"),
            ("Ready", ready, reason, message),
        ]
        .map(|(r#type, status, reason, message)| {
            let old = current.iter().find(|condition| condition["type"] == r#type && condition["status"] == status);
            let since = old.and_then(|condition| condition["lastTransitionTime"].as_str()).map(str::to_owned);
            json!({"type": r#type, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": rfc3339_seconds(now),
                "lastTransitionTime": since.unwrap_or_else(|| rfc3339_seconds(now))})
        })
        .to_vec()
    }
}

/// `metav1.Time`: RFC 3339 in whole seconds.
fn rfc3339_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(readiness: Readiness) -> NodeDescription {
        NodeDescription {
            name: "a".into(),
            internal_ip: Ipv4Addr::new(10, 0, 0, 1),
            facts: MachineFacts { cpus: 2, memory_kib: 1024, hostname: "a".into(), ..Default::default() },
            agent_port: 10250,
            max_pods: 110,
            runtime_version: "docker://20.10.24".into(),
            readiness,
        }
    }

    #[test]
    fn a_condition_keeps_its_transition_time_until_its_status_changes() {
        let early: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let late: Timestamp = "2026-01-01T00:05:00Z".parse().expect("a time");
        let first = node(Readiness::Ready).status(&[], early);
        let conditions = first["conditions"].as_array().expect("conditions").clone();
        let second = node(Readiness::Ready).status(&conditions, late);
        assert_eq!(second["conditions"][3]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(second["conditions"][3]["lastHeartbeatTime"], "2026-01-01T00:05:00Z");
        let third = node(Readiness::NotReady { message: "no Docker".into() }).status(&conditions, late);
        assert_eq!(third["conditions"][3]["lastTransitionTime"], "2026-01-01T00:05:00Z");
        assert_eq!(third["conditions"][3]["message"], "no Docker");
    }
}
