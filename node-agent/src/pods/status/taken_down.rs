//! The status of a pod whose node is taken down: nothing in it is ready until the node is back.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::PodStatus, apimachinery::pkg::apis::meta::v1::Time};

const REASON: &str = "NodeShutdown";

/// `status` with nothing ready in it; as it was for a pod that has ended.
pub fn taken_down(status: &PodStatus, now: Timestamp) -> PodStatus {
    let mut down = status.clone();
    if matches!(down.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return down;
    }
    for container in down.container_statuses.iter_mut().chain(&mut down.init_container_statuses).flatten() {
        container.ready = false;
        container.started = Some(false);
    }
    let ready = |type_: &str| matches!(type_, "Ready" | "ContainersReady");
    let conditions = down.conditions.iter_mut().flatten();
    for condition in conditions.filter(|condition| ready(&condition.type_) && condition.status == "True") {
        condition.status = "False".to_owned();
        condition.reason = Some(REASON.to_owned());
        condition.message = Some("the pod's node is taken down".to_owned());
        condition.last_transition_time = Some(Time(now));
    }
    down
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: &str) -> PodStatus {
        serde_json::from_value(serde_json::json!({
            "phase": phase, "podIP": "10.244.0.2",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"},
                {"type": "ContainersReady", "status": "True"}],
            "containerStatuses": [{"name": "c", "ready": true, "started": true, "restartCount": 0, "image": "i", "imageID": "i"}],
        }))
        .expect("a status")
    }

    #[test]
    fn a_running_pod_is_ready_no_more_and_keeps_all_else() {
        let down = taken_down(&status("Running"), Timestamp::UNIX_EPOCH);
        let conditions = down.conditions.unwrap();
        let said: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(said, [("PodScheduled", "True"), ("Ready", "False"), ("ContainersReady", "False")]);
        assert!(!down.container_statuses.unwrap()[0].ready);
        assert_eq!(down.pod_ip.as_deref(), Some("10.244.0.2"));
    }

    #[test]
    fn a_pod_that_has_ended_stays_as_it_was() {
        assert_eq!(taken_down(&status("Succeeded"), Timestamp::UNIX_EPOCH), status("Succeeded"));
    }
}
