//! Node selectors and node affinity: which nodes a pod may run on, and which it prefers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

type Labels = BTreeMap<String, String>;

/// A pod's rules about nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeAffinity {
    selector: Labels,
    /// Alternatives, of which one must hold; `None` asks for nothing, while an empty list can't be met.
    required: Option<Vec<NodeSelectorTerm>>,
    preferred: Vec<(i64, NodeSelectorTerm)>,
}

impl NodeAffinity {
    /// Reads a pod's node selector and node affinity.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: spec.node_selector.clone().unwrap_or_default(),
            required: required.map(|r| r.node_selector_terms.clone()),
            preferred: preferred.into_iter().flatten().map(|p| (p.weight.into(), p.preference.clone())).collect(),
        }
    }

    /// Whether the pod may run on a node with this name and these labels.
    pub fn admits(&self, node: &str, labels: &Labels) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| holds(term, node, labels)))
    }

    /// Sum of the weights of the preferences that hold.
    pub fn preference(&self, node: &str, labels: &Labels) -> i64 {
        self.preferred.iter().filter(|(_, term)| holds(term, node, labels)).map(|(weight, _)| weight).sum()
    }

    /// Whether there are preferences.
    pub fn prefers(&self) -> bool {
        !self.preferred.is_empty()
    }
}

fn holds(term: &NodeSelectorTerm, node: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // An empty term selects nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| meets(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && meets(r, Some(node)))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    let compare = |is: fn(&i64, &i64) -> bool| {
        let (Some(value), [bound]) = (value, values) else { return false };
        matches!((value.parse(), bound.parse()), (Ok(value), Ok(bound)) if is(&value, &bound))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn affinity(spec: Value) -> NodeAffinity {
        let mut spec = spec;
        spec["containers"] = json!([]);
        NodeAffinity::of(&serde_json::from_value(spec).expect("a valid spec"))
    }

    fn required(expression: Value) -> NodeAffinity {
        affinity(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}}))
    }

    #[test]
    fn selectors_and_every_operator_hold_as_in_kubernetes() {
        let labels: Labels = [("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())].into();
        assert!(affinity(json!({"nodeSelector": {"zone": "a"}})).admits("n", &labels));
        assert!(!affinity(json!({"nodeSelector": {"zone": "b"}})).admits("n", &labels));
        let cases = [
            (json!({"key": "zone", "operator": "In", "values": ["a", "b"]}), true),
            (json!({"key": "zone", "operator": "NotIn", "values": ["a"]}), false),
            (json!({"key": "rack", "operator": "NotIn", "values": ["a"]}), true),
            (json!({"key": "zone", "operator": "Exists"}), true),
            (json!({"key": "zone", "operator": "DoesNotExist"}), false),
            (json!({"key": "cores", "operator": "Gt", "values": ["4"]}), true),
            (json!({"key": "cores", "operator": "Lt", "values": ["4"]}), false),
        ];
        for (expression, expected) in cases {
            assert_eq!(required(expression.clone()).admits("n", &labels), expected, "{expression}");
        }
        let by_name = affinity(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}}}));
        assert!(by_name.admits("n", &labels));
        assert!(!by_name.admits("m", &labels));
    }

    #[test]
    fn preferences_add_up() {
        let preferring =
            affinity(json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": {"matchExpressions": [{"key": "ssd", "operator": "Exists"}]}},
            {"weight": 5, "preference":
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}]}}}));
        assert_eq!(preferring.preference("n", &[("zone".to_owned(), "a".to_owned())].into()), 5);
    }
}
