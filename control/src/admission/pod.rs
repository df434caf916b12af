//! Pod defaults of the cluster: the service account, and 300 s tolerations for nodes that are not ready or unreachable.

use serde_json::{Value, json};

use crate::kinds::pod::defaults::same_under_both_names;

/// Seconds that a pod stays bound to a node that is not ready or not reachable.
const LOST_NODE_TOLERATION_SECONDS: i64 = 300;

/// Fills in what a new pod does not say.
pub fn complete(object: &mut Value) {
    // A node makes its mirror pods known, and they have no service account.
    let mirror = object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    same_under_both_names(spec);
    if !mirror && spec["serviceAccountName"].as_str().is_none_or(str::is_empty) {
        spec["serviceAccountName"] = "default".into();
        spec["serviceAccount"] = "default".into();
    }
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
        if !tolerations.iter().any(|t| tolerates(t, taint)) {
            tolerations.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": LOST_NODE_TOLERATION_SECONDS}));
            spec["tolerations"] = json!(tolerations);
        }
    }
}

/// Whether a toleration is about a `NoExecute` taint of this key, for whatever time.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    let unset = |field: &str| toleration[field].as_str().is_none_or(str::is_empty);
    (unset("key") || toleration["key"] == taint) && (unset("effect") || toleration["effect"] == "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_tolerates_a_lost_node_for_five_minutes_unless_it_says_otherwise() {
        let own = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let mut object = json!({"spec": {"tolerations": [own]}});
        complete(&mut object);
        let tolerations = object["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[0]["tolerationSeconds"], 5);
        assert_eq!(tolerations[1]["key"], "node.kubernetes.io/unreachable");
        let mut any = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        complete(&mut any);
        assert_eq!(any["spec"]["tolerations"].as_array().unwrap().len(), 1);
        assert_eq!(any["spec"]["serviceAccountName"], "default");
    }
}
