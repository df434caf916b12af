//! The least strategic merge patch that turns one status into another: nothing where they are equal. Conditions and
//! addresses are merged one by one, as the kubelet does: what others wrote meanwhile stays.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Lists of a status whose items merge, and by which field: the others are replaced whole.
const MERGED: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// `None` where `current` already says what `desired` does. The pod's uid is a precondition: a successor of the same
/// name is left alone.
pub fn patch(uid: &str, current: &PodStatus, desired: &PodStatus) -> Option<Value> {
    let (current, desired) = (object(current), object(desired));
    let mut status = Map::new();
    for (key, value) in &desired {
        if current.get(key).and_then(said) != said(value) {
            let change = change(key, current.get(key), value);
            // The order of merged items is the server's: where nothing but that differs, a write would change nothing.
            if !(is_merged(key) && change.as_array().is_some_and(Vec::is_empty)) {
                status.insert(key.clone(), change);
            }
        }
    }
    for (key, value) in &current {
        if !desired.contains_key(key) && said(value).is_some() {
            status.insert(key.clone(), change(key, Some(value), &Value::Null));
        }
    }
    (!status.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": status }))
}

fn is_merged(key: &str) -> bool {
    MERGED.iter().any(|(list, _)| *list == key)
}

/// What the patch says of the field `key`, whose value becomes `desired`.
fn change(key: &str, current: Option<&Value>, desired: &Value) -> Value {
    let Some((_, id)) = MERGED.iter().find(|(list, _)| *list == key) else { return desired.clone() };
    let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let (current, desired) = (items(current), items(Some(desired)));
    let same = |list: &[Value], item: &Value| list.iter().find(|other| other[id] == item[id]).cloned();
    let mut changes = Vec::new();
    for item in &desired {
        match same(&current, item) {
            None => changes.push(item.clone()),
            Some(old) if said(&old) != said(item) => changes.push(without(&old, item)),
            Some(_) => {}
        }
    }
    let removed = current.iter().filter(|old| same(&desired, old).is_none());
    changes.extend(removed.map(|old| json!({ *id: old[id], "$patch": "delete" })));
    Value::Array(changes)
}

/// `item`, and nulls for what only `old` says: an item merges field by field.
fn without(old: &Value, item: &Value) -> Value {
    let mut merged = item.clone();
    if let (Some(merged), Some(old)) = (merged.as_object_mut(), old.as_object()) {
        for key in old.keys().filter(|key| !item.as_object().is_some_and(|item| item.contains_key(*key))) {
            merged.insert(key.clone(), Value::Null);
        }
    }
    merged
}

/// What a value says, without what says nothing: the API writes `lastState: {}` and `lastProbeTime: null` where nobody
/// set them, and a write that leaves them out again would change nothing, for ever.
fn said(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) => {
            let map: Map<_, _> = map.iter().filter_map(|(key, value)| Some((key.clone(), said(value)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        // Each item is one, even if it says nothing.
        Value::Array(list) if list.is_empty() => None,
        Value::Array(list) => Some(list.iter().map(|value| said(value).unwrap_or_default()).collect()),
        other => Some(other.clone()),
    }
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
    fn the_order_of_merged_items_is_left_to_the_api() {
        let of = |types: [&str; 2]| -> PodStatus {
            let conditions = types.map(|name| json!({ "type": name, "status": "True" }));
            serde_json::from_value(json!({ "conditions": conditions })).expect("a status")
        };
        assert_eq!(patch("u", &of(["DisruptionTarget", "Ready"]), &of(["Ready", "DisruptionTarget"])), None);
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

    #[test]
    fn what_the_api_adds_to_a_status_is_not_written_again_and_again() {
        let desired: PodStatus = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{"name": "c",
            "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {"startedAt":
            "2030-01-01T00:00:00Z"}}}], "conditions": [{"type": "Ready", "status": "True"}]}))
        .unwrap();
        let mut answered = serde_json::to_value(&desired).unwrap();
        answered["containerStatuses"][0]["lastState"] = json!({});
        answered["conditions"][0]["lastProbeTime"] = Value::Null;
        answered["hostIPs"] = json!([]);
        let answered: PodStatus = serde_json::from_value(answered).unwrap();
        assert_eq!(patch("u", &answered, &desired), None);
        let mut restarted = desired.clone();
        restarted.container_statuses.as_mut().unwrap()[0].restart_count = 1;
        assert!(patch("u", &answered, &restarted).is_some());
        let none = PodStatus { conditions: None, ..desired };
        let gone = json!({"conditions": [{"type": "Ready", "$patch": "delete"}]});
        assert_eq!(patch("u", &answered, &none).unwrap()["status"], gone);
    }

    #[test]
    fn conditions_of_others_are_left_out_of_the_patch() {
        let status = |value: Value| -> PodStatus { serde_json::from_value(value).unwrap() };
        let current = status(json!({"conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"},
            {"type": "PodResizePending", "status": "True"},
            {"type": "example.com/gate", "status": "False"}]}));
        let desired = status(json!({"conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Initialized", "status": "True"},
            {"type": "example.com/gate", "status": "False"}]}));
        let conditions = json!([
            {"type": "Ready", "status": "True", "reason": null, "message": null},
            {"type": "Initialized", "status": "True"},
            {"type": "PodResizePending", "$patch": "delete"}]);
        assert_eq!(patch("u", &current, &desired).unwrap()["status"], json!({"conditions": conditions}));
    }

    #[test]
    fn an_address_that_changed_takes_the_place_of_the_old_one() {
        let status = |ip: &str| -> PodStatus { serde_json::from_value(json!({"podIPs": [{"ip": ip}]})).unwrap() };
        let patch = patch("u", &status("10.0.0.1"), &status("10.0.0.2")).unwrap();
        let addresses = json!([{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "$patch": "delete"}]);
        assert_eq!(patch["status"], json!({"podIPs": addresses}));
    }
}
