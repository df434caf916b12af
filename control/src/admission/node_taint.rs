//! TaintNodesByCondition: a new node takes no pods until the node lifecycle controller has seen that it is ready.

use serde_json::{Value, json};

use crate::kinds::reading::{items, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

/// Adds the taint of nodes that are not ready.
pub fn add(node: &mut Value) {
    let taints = &mut node["spec"]["taints"];
    if items(taints).any(|taint| text(taint, "key") == NOT_READY && text(taint, "effect") == EFFECT) {
        return;
    }
    let taint = json!({"key": NOT_READY, "effect": EFFECT});
    match taints.as_array_mut() {
        Some(taints) => taints.push(taint),
        None => *taints = json!([taint]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_is_not_ready_once() {
        let mut node = json!({"spec": {"taints": [{"key": NOT_READY, "effect": "NoExecute"}]}});
        add(&mut node);
        add(&mut node);
        let taints = json!([{"key": NOT_READY, "effect": "NoExecute"}, {"key": NOT_READY, "effect": "NoSchedule"}]);
        assert_eq!(node["spec"]["taints"], taints);
        let mut bare = json!({"metadata": {"name": "n"}});
        add(&mut bare);
        assert_eq!(bare["spec"]["taints"][0]["key"], NOT_READY);
    }
}
