//! Taints of nodes and the tolerations of pods.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Effect that keeps new pods away.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Effect that also evicts pods.
pub const NO_EXECUTE: &str = "NoExecute";
/// Effect that keeps new pods away where others can take them.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";

/// Whether `toleration` tolerates `taint`. Source: `Toleration.ToleratesTaint`.
pub fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn tolerations_cover_by_key_value_and_effect() {
        let taint: Taint = serde_json::from_value(json!({"key": "gpu", "value": "yes", "effect": NO_SCHEDULE}))
            .expect("a valid taint");
        let covered =
            |toleration: Value| covers(&serde_json::from_value(toleration).expect("a valid toleration"), &taint);
        assert!(covered(json!({"operator": "Exists"})));
        assert!(covered(json!({"key": "gpu", "operator": "Exists"})));
        assert!(covered(json!({"key": "gpu", "value": "yes"})));
        assert!(!covered(json!({"key": "gpu", "value": "no"})));
        assert!(!covered(json!({"key": "gpu", "operator": "Exists", "effect": NO_EXECUTE})));
        assert!(!covered(json!({"key": "cpu", "operator": "Exists"})));
    }
}
