//! Whether a container can have a log yet. Pure; Kubernetes' own words.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::api::Status;

/// Refuses the log of a container that has not begun, saying why it has not (`validateContainerLogStatus` of the
/// kubelet).
pub fn check(pod: &Pod, container: &str, previous: bool) -> Result<(), Status> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let refuse = |why: String| Err(Status::bad_request(why));
    let Some(status) = status_of(pod, container) else {
        return refuse(format!("container {container:?} in pod {name:?} is waiting to start: ContainerCreating"));
    };
    let had_run = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    if previous {
        if had_run {
            return Ok(());
        }
        return refuse(format!("previous terminated container {container:?} in pod {name:?} not found"));
    }
    let state = status.state.clone().unwrap_or_default();
    match state.waiting {
        // A container that waits to be started again has the log of its last run.
        Some(waiting) if !had_run => {
            let reason = match waiting.reason.as_deref().unwrap_or("ContainerCreating") {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            refuse(format!("container {container:?} in pod {name:?} is waiting to start: {reason}"))
        }
        _ => Ok(()),
    }
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == container)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(statuses: Value) -> Pod {
        let spec = json!({"containers": [{"name": "c"}]});
        let pod = json!({"metadata": {"name": "web"}, "spec": spec, "status": {"containerStatuses": statuses}});
        serde_json::from_value(pod).unwrap()
    }

    fn status(state: Value, last: Value) -> Value {
        json!([{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last}])
    }

    #[test]
    fn a_container_that_has_not_begun_has_no_log_and_says_why() {
        let message = |statuses: Value, previous| check(&pod(statuses), "c", previous).err().map(|s| s.message);
        let waiting = |reason: &str| status(json!({"waiting": {"reason": reason}}), json!({}));
        assert_eq!(
            message(waiting("ContainerCreating"), false).unwrap(),
            r#"container "c" in pod "web" is waiting to start: ContainerCreating"#
        );
        assert_eq!(
            message(waiting("ImagePullBackOff"), false).unwrap(),
            r#"container "c" in pod "web" is waiting to start: trying and failing to pull image"#
        );
        assert_eq!(
            message(json!([]), false).unwrap(),
            r#"container "c" in pod "web" is waiting to start: ContainerCreating"#
        );
        let running = json!({"running": {"startedAt": "2030-01-01T00:00:00Z"}});
        assert_eq!(message(status(running.clone(), json!({})), false), None);
        assert_eq!(
            message(status(running, json!({})), true).unwrap(),
            r#"previous terminated container "c" in pod "web" not found"#
        );
        let crashed = json!({"terminated": {"exitCode": 1}});
        assert_eq!(message(status(json!({"waiting": {"reason": "CrashLoopBackOff"}}), crashed.clone()), false), None);
        assert_eq!(message(status(json!({"running": {}}), crashed), true), None);
    }
}
