//! DefaultTolerationSeconds: every pod tolerates a node that is not ready or unreachable for 300 s, unless it says
//! otherwise.

use serde_json::{Value, json};

use super::plugins::{Mutate, Plugin};
use crate::{
    admission_plugins::PluginName,
    kinds::reading::{items, text},
};

/// Seconds that a pod stays bound to a node that is not ready or not reachable.
const LOST_NODE_TOLERATION_SECONDS: i64 = 300;

/// New and changed pods get the tolerations.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(|context, pod| {
        if context.puts(("", "Pod")) {
            add(&mut pod["spec"]);
        }
        Ok(())
    })),
    ..Plugin::named(PluginName::DefaultTolerationSeconds)
};

/// Adds the tolerations that a pod's spec does not have.
fn add(spec: &mut Value) {
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if items(&spec["tolerations"]).any(|toleration| tolerates(toleration, taint)) {
            continue;
        }
        let toleration = json!({"key": taint, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": LOST_NODE_TOLERATION_SECONDS});
        match spec["tolerations"].as_array_mut() {
            Some(tolerations) => tolerations.push(toleration),
            None => spec["tolerations"] = Value::Array(vec![toleration]),
        }
    }
}

/// Whether a toleration is about a `NoExecute` taint of this key, for whatever time.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    let says = |field: &str, value: &str| matches!(text(toleration, field), said if said.is_empty() || said == value);
    says("key", taint) && says("effect", "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_tolerates_a_lost_node_for_five_minutes_unless_it_says_otherwise() {
        let own = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 5});
        let mut spec = json!({"tolerations": [own]});
        add(&mut spec);
        let tolerations = spec["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[0]["tolerationSeconds"], 5);
        assert_eq!(tolerations[1]["key"], "node.kubernetes.io/unreachable");
        let mut any = json!({"tolerations": [{"operator": "Exists"}]});
        add(&mut any);
        assert_eq!(any["tolerations"].as_array().unwrap().len(), 1);
        let mut none = json!({});
        add(&mut none);
        assert_eq!(none["tolerations"].as_array().unwrap().len(), 2);
    }
}
