//! ReplicationControllers in the form of ReplicaSets, which they were before there were any: the two differ in the
//! selector alone. Kubernetes' controller does the same (`pkg/controller/replication/conversion.go`).

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::{
            ReplicationController, ReplicationControllerCondition, ReplicationControllerSpec,
            ReplicationControllerStatus,
        },
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

/// What is watched, as the controller of ReplicaSets reads it.
pub fn as_replica_set(controller: ReplicationController) -> ReplicaSet {
    let ReplicationController { metadata, spec, status } = controller;
    let spec = spec.map(|spec| ReplicaSetSpec {
        min_ready_seconds: spec.min_ready_seconds,
        replicas: spec.replicas,
        selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
        template: spec.template,
    });
    ReplicaSet { metadata, spec, status: status.map(as_replica_set_status) }
}

/// What is written: the status of `set`, beside what else it came with.
pub fn with_status(set: &ReplicaSet, status: ReplicaSetStatus) -> ReplicationController {
    let spec = set.spec.clone().map(|spec| ReplicationControllerSpec {
        min_ready_seconds: spec.min_ready_seconds,
        replicas: spec.replicas,
        selector: spec.selector.match_labels,
        template: spec.template,
    });
    let condition = |condition: ReplicaSetCondition| ReplicationControllerCondition {
        last_transition_time: condition.last_transition_time,
        message: condition.message,
        reason: condition.reason,
        status: condition.status,
        type_: condition.type_,
    };
    let status = ReplicationControllerStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|conditions| conditions.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
    };
    ReplicationController { metadata: set.metadata.clone(), spec, status: Some(status) }
}

fn as_replica_set_status(status: ReplicationControllerStatus) -> ReplicaSetStatus {
    let condition = |condition: ReplicationControllerCondition| ReplicaSetCondition {
        last_transition_time: condition.last_transition_time,
        message: condition.message,
        reason: condition.reason,
        status: condition.status,
        type_: condition.type_,
    };
    ReplicaSetStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|conditions| conditions.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
        terminating_replicas: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way_there_and_back() {
        let text = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "a", "generation": 3},
            "spec": {"replicas": 2, "minReadySeconds": 5, "selector": {"app": "a"},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c"}]}}},
            "status": {"replicas": 2, "readyReplicas": 1, "availableReplicas": 1, "fullyLabeledReplicas": 2,
                "observedGeneration": 3, "conditions": [{"type": "ReplicaFailure", "status": "True",
                    "reason": "FailedCreate", "message": "no", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let controller: ReplicationController = serde_json::from_value(text.clone()).unwrap();
        let set = as_replica_set(controller);
        let back = with_status(&set, set.status.clone().unwrap());
        assert_eq!(serde_json::to_value(back).unwrap(), text);
    }
}
