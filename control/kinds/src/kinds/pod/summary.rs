//! The READY, STATUS and RESTARTS that `kubectl get pods` shows: one word for all of a pod's containers.
//!
//! Follows the printer of Kubernetes (`printPod`), whose words people and scripts know.

use std::collections::HashSet;

use serde_json::Value;

/// The figures and the word that the columns show.
pub struct Summary {
    /// Of the spec, sidecars included.
    pub containers: usize,
    /// Those of `containers` that are ready.
    pub ready: usize,
    /// As the column RESTARTS shows them.
    pub restarts: i64,
    /// When a container last ended before a restart; null where none did.
    pub last_restart: Value,
    /// `Running`, `CrashLoopBackOff`, `Init:0/2`, `Completed`, `Terminating`, …
    pub reason: String,
}

/// Summarises a pod.
pub fn of(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = status["phase"].as_str().unwrap_or_default();
    let mut summary = Summary {
        containers: list(&spec["containers"]).count() + list(&spec["initContainers"]).filter(|c| is_sidecar(c)).count(),
        ready: 0,
        restarts: 0,
        last_restart: Value::Null,
        reason: status["reason"].as_str().filter(|r| !r.is_empty()).unwrap_or(phase).to_owned(),
    };
    let gated = |c: &Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
    if list(&status["conditions"]).any(gated) {
        summary.reason = "SchedulingGated".to_owned();
    }
    let initializing = init_containers(&mut summary, spec, status);
    if !initializing || condition_holds(status, "Initialized") {
        containers(&mut summary, spec, status);
    }
    let deleted = !pod["metadata"]["deletionTimestamp"].is_null();
    if deleted && status["reason"] == "NodeLost" {
        summary.reason = "Unknown".to_owned();
    } else if deleted && !matches!(phase, "Succeeded" | "Failed") {
        summary.reason = "Terminating".to_owned();
    }
    summary
}

/// The names of the init containers that run beside the app containers.
fn sidecars(spec: &Value) -> HashSet<&str> {
    list(&spec["initContainers"]).filter(|c| is_sidecar(c)).filter_map(|c| c["name"].as_str()).collect()
}

/// Tells whether the pod is still busy with its init containers.
fn init_containers(summary: &mut Summary, spec: &Value, status: &Value) -> bool {
    let sidecars = sidecars(spec);
    for (i, container) in list(&status["initContainerStatuses"]).enumerate() {
        count_restarts(summary, container);
        let sidecar = container["name"].as_str().is_some_and(|name| sidecars.contains(name));
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        let waits_for = waiting["reason"].as_str().unwrap_or_default();
        if terminated.is_object() && terminated["exitCode"].as_i64().unwrap_or_default() == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        summary.reason = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !waits_for.is_empty() && waits_for != "PodInitializing" {
            format!("Init:{waits_for}")
        } else {
            format!("Init:{i}/{}", list(&spec["initContainers"]).count())
        };
        return true;
    }
    false
}

fn containers(summary: &mut Summary, spec: &Value, status: &Value) {
    // From here on only what still runs counts: sidecars and the app containers.
    (summary.restarts, summary.last_restart) = (0, Value::Null);
    let sidecars = sidecars(spec);
    for container in list(&status["initContainerStatuses"]) {
        if container["name"].as_str().is_some_and(|name| sidecars.contains(name)) {
            count_restarts(summary, container);
        }
    }
    let (mut running, mut failure) = (false, None);
    for container in list(&status["containerStatuses"]).rev() {
        count_restarts(summary, container);
        let state = &container["state"];
        if let Some(reason) = state["waiting"]["reason"].as_str().filter(|r| !r.is_empty()) {
            summary.reason = reason.to_owned();
        } else if state["terminated"].is_object() {
            summary.reason = ended(&state["terminated"]);
            if state["terminated"]["exitCode"].as_i64().unwrap_or_default() != 0 {
                failure = Some(summary.reason.clone());
            }
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        match failure {
            _ if running && condition_holds(status, "Ready") => summary.reason = "Running".to_owned(),
            Some(failure) => summary.reason = failure,
            None if running => summary.reason = "NotReady".to_owned(),
            None => {}
        }
    }
}

fn count_restarts(summary: &mut Summary, container: &Value) {
    summary.restarts += container["restartCount"].as_i64().unwrap_or_default();
    let ended = &container["lastState"]["terminated"]["finishedAt"];
    // RFC 3339 in UTC sorts as text.
    if ended.as_str() > summary.last_restart.as_str() {
        summary.last_restart = ended.clone();
    }
}

fn ended(terminated: &Value) -> String {
    let number = |field: &str| terminated[field].as_i64().unwrap_or_default();
    match terminated["reason"].as_str() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ if number("signal") != 0 => format!("Signal:{}", number("signal")),
        _ => format!("ExitCode:{}", number("exitCode")),
    }
}

/// An init container that keeps running beside the app containers.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn condition_holds(status: &Value, kind: &str) -> bool {
    list(&status["conditions"]).any(|c| c["type"] == kind && c["status"] == "True")
}

fn list(value: &Value) -> std::slice::Iter<'_, Value> {
    value.as_array().map_or([].iter(), |list| list.iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reason(status: Value) -> String {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        of(&json!({"metadata": {}, "spec": spec, "status": status})).reason
    }

    #[test]
    fn the_status_word_is_the_one_kubectl_users_know() {
        let waiting = |why: &str| json!({"name": "a", "state": {"waiting": {"reason": why}}});
        assert_eq!(reason(json!({"phase": "Pending"})), "Pending");
        assert_eq!(reason(json!({"phase": "Failed", "reason": "Evicted"})), "Evicted");
        assert_eq!(
            reason(json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]})),
            "CrashLoopBackOff"
        );
        let init = |state: Value| json!([{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": state}]);
        let status = |state: Value| json!({"phase": "Pending", "initContainerStatuses": init(state)});
        assert_eq!(reason(status(json!({"running": {}}))), "Init:1/2");
        assert_eq!(reason(status(json!({"terminated": {"exitCode": 3}}))), "Init:ExitCode:3");
        assert_eq!(reason(status(json!({"waiting": {"reason": "ImagePullBackOff"}}))), "Init:ImagePullBackOff");
        let done = json!({"phase": "Succeeded", "containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]});
        assert_eq!(reason(done), "Completed");
    }

    #[test]
    fn a_deleted_pod_is_terminating_until_it_has_ended() {
        let pod = |phase: &str| json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": phase}});
        assert_eq!(of(&pod("Running")).reason, "Terminating");
        assert_eq!(of(&pod("Succeeded")).reason, "Succeeded");
    }

    #[test]
    fn restarts_are_summed_and_the_last_one_is_dated() {
        let ended = |at: &str, n: u8| {
            json!({"restartCount": n, "ready": true, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": at}}})
        };
        let summary = of(&json!({"metadata": {}, "spec": {"containers": [{}, {}]}, "status": {"phase": "Running",
            "containerStatuses": [ended("2026-01-01T00:00:09Z", 2), ended("2026-01-01T00:00:01Z", 1)]}}));
        assert_eq!((summary.restarts, summary.ready, summary.containers), (3, 2, 2));
        assert_eq!(summary.last_restart, "2026-01-01T00:00:09Z");
    }
}
