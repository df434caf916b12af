//! Who a container belongs to, as labels and a name that outlive the agent. Decides only how that is written and read
//! back.

use std::{collections::HashMap, fmt};

/// The pod a container belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// Of the Pod object.
    pub namespace: String,
    /// Of the Pod object.
    pub name: String,
    /// `metadata.uid`: tells a pod from a later one of the same name.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// What a container is to its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds the pod's namespaces.
    Sandbox,
    /// Runs a container of the pod's spec.
    Container {
        name: String,
        /// Hash of the container's spec, by which an adopter sees that it changed.
        hash: String,
        /// Id of the sandbox it was made for.
        sandbox: String,
        /// What it was created with, in the agent's own form.
        resources: String,
    },
}

/// Whose container it is, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerOwner {
    /// Named in the container's labels, so that a new agent knows whose it is.
    pub pod: PodRef,
    /// Sandbox, or which container of the spec.
    pub role: Role,
    /// Counts the containers of this role that came before.
    pub attempt: u32,
}

impl ContainerOwner {
    /// As the kubelet named its own: `k8s_NAME_POD_NAMESPACE_UID_ATTEMPT`.
    pub fn container_name(&self) -> String {
        let name = match &self.role {
            Role::Sandbox => "POD",
            Role::Container { name, .. } => name,
        };
        let PodRef { namespace, name: pod, uid } = &self.pod;
        format!("k8s_{name}_{pod}_{namespace}_{uid}_{}", self.attempt)
    }

    /// The labels of a container of this owner on `node`.
    pub fn labels(&self, node: &str) -> HashMap<String, String> {
        let mut labels = HashMap::from([
            (NODE.to_owned(), node.to_owned()),
            (POD_NAME.to_owned(), self.pod.name.clone()),
            (POD_NAMESPACE.to_owned(), self.pod.namespace.clone()),
            (POD_UID.to_owned(), self.pod.uid.clone()),
            (ATTEMPT.to_owned(), self.attempt.to_string()),
        ]);
        if let Role::Container { name, hash, sandbox, resources } = &self.role {
            labels.insert(CONTAINER_NAME.to_owned(), name.clone());
            labels.insert(HASH.to_owned(), hash.clone());
            labels.insert(SANDBOX.to_owned(), sandbox.clone());
            labels.insert(RESOURCES.to_owned(), resources.clone());
        }
        labels
    }

    /// `None` for a container that is not the agent's, or whose labels were tampered with.
    pub fn from_labels(labels: &HashMap<String, String>) -> Option<Self> {
        let get = |key: &str| labels.get(key).cloned();
        let role = match get(CONTAINER_NAME) {
            None => Role::Sandbox,
            Some(name) => Role::Container {
                name,
                hash: get(HASH)?,
                sandbox: get(SANDBOX)?,
                // Containers of earlier agents have none.
                resources: get(RESOURCES).unwrap_or_default(),
            },
        };
        Some(Self {
            pod: PodRef { namespace: get(POD_NAMESPACE)?, name: get(POD_NAME)?, uid: get(POD_UID)? },
            role,
            attempt: get(ATTEMPT)?.parse().ok()?,
        })
    }
}

/// Set on all that an agent makes; its value is the node's name.
pub(super) const NODE: &str = "io.fairlead.node";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const HASH: &str = "io.kubernetes.container.hash";
const SANDBOX: &str = "io.kubernetes.sandbox.id";
const RESOURCES: &str = "io.fairlead.container.resources";
const ATTEMPT: &str = "io.kubernetes.container.restartCount";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_from_its_labels() {
        let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: "u-1".into() };
        let role = Role::Container {
            name: "app".into(),
            hash: "cafe".into(),
            sandbox: "5a".into(),
            resources: "1,2,,".into(),
        };
        for role in [Role::Sandbox, role] {
            let owner = ContainerOwner { pod: pod.clone(), role, attempt: 3 };
            assert_eq!(ContainerOwner::from_labels(&owner.labels("n1")), Some(owner));
        }
    }

    #[test]
    fn a_container_without_the_labels_belongs_to_no_pod() {
        assert_eq!(ContainerOwner::from_labels(&HashMap::new()), None);
    }

    #[test]
    fn names_are_those_of_the_kubelet() {
        let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: "u-1".into() };
        let owner = ContainerOwner { pod, role: Role::Sandbox, attempt: 0 };
        assert_eq!(owner.container_name(), "k8s_POD_web_default_u-1_0");
    }
}
