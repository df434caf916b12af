//! What a Job's pod failure policy says of a failed pod. Source: KEP-3329.

use k8s_openapi::api::{
    batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern},
    core::v1::{ContainerStatus, Pod, PodCondition, PodStatus},
};

/// What is done about a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureAction {
    /// It counts towards the limits: a rule says so, or none says anything.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, with this message.
    FailJob(String),
}

/// Whether the failure counts towards the limits.
pub fn counts(spec: &JobSpec, pod: &Pod) -> bool {
    action(spec, pod) != FailureAction::Ignore
}

/// What the first rule that matches the pod says.
pub fn action(spec: &JobSpec, pod: &Pod) -> FailureAction {
    let (Some(policy), Some(status)) = (&spec.pod_failure_policy, &pod.status) else { return FailureAction::Count };
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    let pod_name = format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default());
    for (i, rule) in policy.rules.iter().enumerate() {
        let matched = if let Some(codes) = &rule.on_exit_codes {
            failed_container(status, codes).map(|(container, code)| {
                format!("Container {} for pod {pod_name} failed with exit code {code}", container.name)
            })
        } else {
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            matching_condition(status, patterns).map(|c| format!("Pod {pod_name} has condition {}", c.type_))
        };
        let Some(cause) = matched else { continue };
        match rule.action.as_str() {
            "Ignore" => return FailureAction::Ignore,
            "FailIndex" => return FailureAction::FailIndex,
            "Count" => return FailureAction::Count,
            "FailJob" => return FailureAction::FailJob(format!("{cause} matching FailJob rule at index {i}")),
            // An action of a later version says nothing here.
            _ => {}
        }
    }
    FailureAction::Count
}

fn failed_container<'a>(
    status: &'a PodStatus,
    codes: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a ContainerStatus, i32)> {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|container| codes.container_name.as_ref().is_none_or(|name| *name == container.name)).find_map(
        |container| {
            let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
            let listed = codes.values.contains(&code);
            let matches = match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            };
            (code != 0 && matches).then_some((container, code))
        },
    )
}

fn matching_condition<'a>(
    status: &'a PodStatus,
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| {
        patterns.iter().any(|pattern| {
            pattern.type_ == condition.type_ && pattern.status.as_deref().unwrap_or("True") == condition.status
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: &[(&str, i32)], init: &[(&str, i32)], condition: &str) -> Pod {
        let statuses = |all: &[(&str, i32)]| -> Value {
            let status = |(name, code): &(&str, i32)| {
                let exited = json!({"terminated": {"exitCode": code}});
                let state = if *code < 0 { json!({"running": {}}) } else { exited };
                json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": state})
            };
            all.iter().map(status).collect()
        };
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "p"}, "status": {"phase": "Failed",
            "containerStatuses": statuses(containers), "initContainerStatuses": statuses(init),
            "conditions": [{"type": condition, "status": "True"}]}}))
        .expect("a valid pod")
    }

    fn decide(rules: Value, pod: &Pod) -> FailureAction {
        let spec = json!({"template": {}, "podFailurePolicy": {"rules": rules}});
        action(&serde_json::from_value(spec).expect("a valid spec"), pod)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let codes = |action: &str, operator: &str, values: &[i32], container: Value| {
            json!({"action": action, "onExitCodes": {"operator": operator, "values": values,
                "containerName": container}})
        };
        let disrupted = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]});
        let failed = pod(&[("main", 5), ("side", -1)], &[("setup", 42)], "DisruptionTarget");
        let fail_job = |container: &str, code: i32, index: usize| {
            FailureAction::FailJob(format!(
                "Container {container} for pod ns/p failed with exit code {code} matching FailJob rule at index {index}"
            ))
        };
        for (rules, expected) in [
            (json!([]), FailureAction::Count),
            (json!([codes("FailJob", "In", &[1, 5], Value::Null)]), fail_job("main", 5, 0)),
            (json!([codes("FailJob", "In", &[42], Value::Null)]), fail_job("setup", 42, 0)),
            (json!([codes("FailJob", "In", &[42], json!("main"))]), FailureAction::Count),
            (json!([codes("FailJob", "NotIn", &[5, 42], Value::Null)]), FailureAction::Count),
            (json!([codes("Ignore", "NotIn", &[1], json!("main"))]), FailureAction::Ignore),
            (json!([codes("FailIndex", "In", &[5], json!("main"))]), FailureAction::FailIndex),
            (json!([codes("Count", "In", &[5], json!("main")), disrupted.clone()]), FailureAction::Count),
            (json!([codes("Later", "In", &[5], json!("main")), disrupted.clone()]), FailureAction::Ignore),
            (
                json!([codes("Ignore", "In", &[7], json!("main")), codes("FailJob", "In", &[5], Value::Null)]),
                fail_job("main", 5, 1),
            ),
            (
                json!([{"action": "FailJob", "onPodConditions": [{"type": "Other"}, {"type": "DisruptionTarget",
                    "status": "True"}]}]),
                FailureAction::FailJob(
                    "Pod ns/p has condition DisruptionTarget matching FailJob rule at index 0".into(),
                ),
            ),
            (
                json!([{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "False"}]}]),
                FailureAction::Count,
            ),
        ] {
            assert_eq!(decide(rules.clone(), &failed), expected, "{rules}");
        }
    }

    #[test]
    fn a_container_that_exited_with_zero_never_matches() {
        let rules = json!([{"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [5]}}]);
        assert_eq!(decide(rules, &pod(&[("main", 0)], &[], "Ready")), FailureAction::Count);
    }
}
