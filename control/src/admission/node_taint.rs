//! TaintNodesByCondition: a new node takes no pods until the node lifecycle controller has seen that it is ready.

use serde_json::{Value, json};

use super::plugins::{Mutate, Plugin};
use crate::{
    admission_plugins::PluginName,
    kinds::reading::{items, text},
    request::Verb,
};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

/// New nodes get the taint of nodes that are not ready.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(|context, node| {
        if context.is(Verb::Create, ("", "Node"), None) {
            add(node);
        }
        Ok(())
    })),
    ..Plugin::named(PluginName::TaintNodesByCondition)
};

/// Adds the taint of nodes that are not ready.
fn add(node: &mut Value) {
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
