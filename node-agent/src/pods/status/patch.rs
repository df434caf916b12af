//! The least merge patch that turns one status into another: nothing where they are equal.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// `None` where `current` already says what `desired` does. The pod's uid is a precondition: a successor of the same
/// name is left alone.
pub fn patch(uid: &str, current: &PodStatus, desired: &PodStatus) -> Option<Value> {
    let (current, desired) = (object(current), object(desired));
    let mut status = Map::new();
    for (key, value) in &desired {
        if current.get(key) != Some(value) {
            status.insert(key.clone(), value.clone());
        }
    }
    for key in current.keys().filter(|key| !desired.contains_key(*key)) {
        status.insert(key.clone(), Value::Null);
    }
    (!status.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": status }))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match fairlead_client::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_statuses_need_no_write() {
        let status = PodStatus { phase: Some("Running".into()), ..Default::default() };
        assert_eq!(patch("u", &status, &status.clone()), None);
    }

    #[test]
    fn only_what_differs_is_written_and_what_is_gone_is_nulled() {
        let current = PodStatus {
            phase: Some("Pending".into()),
            message: Some("m".into()),
            host_ip: Some("h".into()),
            ..Default::default()
        };
        let desired = PodStatus { phase: Some("Running".into()), host_ip: Some("h".into()), ..Default::default() };
        let patch = patch("u", &current, &desired).unwrap();
        assert_eq!(patch, json!({ "metadata": { "uid": "u" }, "status": { "phase": "Running", "message": null } }));
    }
}
