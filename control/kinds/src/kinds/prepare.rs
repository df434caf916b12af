//! What a write through the main resource changes in every object with a spec and a status: the status belongs to the
//! `/status` subresource, and `metadata.generation` counts changes of the spec.

use serde_json::{Value, json};

use super::{Sent, reading::same};

/// On create, `initial` becomes the status; on update the stored status stays.
pub fn keep_status(new: &mut Value, old: Option<&Value>, initial: Value) {
    let Some(object) = new.as_object_mut() else { return };
    match old.map(|old| old.get("status")) {
        None => object.insert("status".into(), initial),
        Some(Some(status)) => object.insert("status".into(), status.clone()),
        Some(None) => object.shift_remove("status"),
    };
}

/// 1 on create; one more on each update that changes anything but metadata and status.
pub fn count_generation(new: &mut Value, old: Option<&Value>) {
    set_generation(new, old, same_content);
}

/// The same where Kubernetes compares with `reflect.DeepEqual`: a list or map that a client sends empty is a change, as
/// what is read from the storage has no empty ones.
pub fn count_sent_generation(new: &mut Value, old: Option<&Value>, sent: &Sent) {
    let has_empty_content = sent.empties.paths().any(|path| !path.starts_with("status."));
    set_generation(new, old, |new, old| !has_empty_content && same_content(new, old));
}

fn set_generation(new: &mut Value, old: Option<&Value>, is_same: impl FnOnce(&Value, &Value) -> bool) {
    let generation = match old {
        None => 1,
        Some(old) => {
            let counted = old["metadata"]["generation"].as_i64().unwrap_or(1);
            if is_same(new, old) { counted } else { counted.saturating_add(1) }
        }
    };
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("generation".into(), json!(generation));
    }
}

/// One more on each update that changes anything but metadata and status; nothing on create.
pub fn count_changes(new: &mut Value, old: Option<&Value>) {
    let Some(old) = old.filter(|old| !same_content(new, old)) else { return };
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0).saturating_add(1);
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("generation".into(), json!(generation));
    }
}

/// Equal but for metadata and status. The order of keys does not count, nor does what is there but empty.
fn same_content(a: &Value, b: &Value) -> bool {
    let fields = |v: &Value| -> Vec<String> {
        let keys = v.as_object().into_iter().flatten().map(|(key, _)| key.clone());
        keys.filter(|key| !matches!(key.as_str(), "metadata" | "status")).collect()
    };
    fields(a).iter().chain(&fields(b)).all(|field| same(&a[field], &b[field]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn only_a_change_of_the_spec_counts_as_a_generation() {
        let old = json!({"metadata": {"generation": 4}, "spec": {"replicas": 1, "paused": true}, "status": {"a": 1}});
        let mut same =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"paused": true, "replicas": 1}, "status": {}});
        count_generation(&mut same, Some(&old));
        assert_eq!(same["metadata"]["generation"], 4);
        let mut other = json!({"metadata": {}, "spec": {"replicas": 2}});
        count_generation(&mut other, Some(&old));
        assert_eq!(other["metadata"]["generation"], 5);
    }

    #[test]
    fn an_empty_list_is_a_new_generation_where_go_tells_it_from_none() {
        let counted = |group: &str, plural: &str, object: Value| {
            let kind = Kinds::built_in().by_path(group, "v1", plural).unwrap();
            let (decoded, empties) = kind.schema.decode_sent_value(object).unwrap();
            let mut old = decoded.value.clone();
            old["metadata"]["generation"] = json!(1);
            let mut new = decoded.value;
            let sent = Sent::of(&new, empties);
            (kind.prepare)(&mut new, Some(&old), &sent);
            new["metadata"]["generation"].clone()
        };
        let hooks = |selector: Value| json!({"metadata": {"labels": {}}, "webhooks": [{"objectSelector": selector}]});
        let group = "admissionregistration.k8s.io";
        for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            assert_eq!(counted(group, plural, hooks(json!({"matchExpressions": []}))), 2);
            assert_eq!(counted(group, plural, hooks(json!({}))), 1);
        }
        let group = "networking.k8s.io";
        let spec = |field: &str| json!({"metadata": {}, "spec": {field: []}});
        assert_eq!(counted(group, "networkpolicies", spec("ingress")), 2);
        assert_eq!(counted(group, "ingresses", spec("rules")), 1);
    }

    #[test]
    fn some_kinds_count_their_changes_from_zero() {
        let mut new = json!({"metadata": {}, "spec": {"a": 1}});
        count_changes(&mut new, None);
        assert_eq!(new["metadata"], json!({}));
        count_changes(&mut new, Some(&json!({"metadata": {}, "spec": {"a": 2}})));
        assert_eq!(new["metadata"]["generation"], 1);
    }

    #[test]
    fn a_status_sent_with_the_main_resource_is_ignored() {
        let mut new = json!({"status": {"phase": "Running"}});
        keep_status(&mut new, None, json!({"phase": "Pending"}));
        assert_eq!(new["status"]["phase"], "Pending");
        keep_status(&mut new, Some(&json!({"status": {"phase": "Failed"}})), json!({}));
        assert_eq!(new["status"]["phase"], "Failed");
    }
}
