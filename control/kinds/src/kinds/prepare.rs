//! What a write through the main resource changes in every object with a spec and a status: the status belongs to the
//! `/status` subresource, and `metadata.generation` counts changes of the spec.

use serde_json::{Value, json};

use super::reading::same;

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
    let generation = match old {
        None => 1,
        Some(old) => {
            let counted = old["metadata"]["generation"].as_i64().unwrap_or(1);
            if same_content(new, old) { counted } else { counted.saturating_add(1) }
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
