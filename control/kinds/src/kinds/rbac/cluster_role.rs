//! ClusterRole: what may be done in the whole cluster, or wherever a RoleBinding grants it. Its rules may be those of
//! other ClusterRoles, found by their labels.

use serde_json::Value;

use super::{GROUP, policy_rule};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, label_selector, names};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    object_name: names::path_segment,
    validate,
    columns: &[Column::name(), Column::created_at()],
    cells: |object| vec![Cell::name(object), Cell::created_at(object)],
    schema: "io.k8s.api.rbac.v1.ClusterRole",
    creates_on_update: true,
    ..BuiltIn::PLAIN
};

fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    const PATH: &str = "aggregationRule.clusterRoleSelectors";
    let mut errors = policy_rule::validate(new, false);
    let rule = &new["aggregationRule"];
    if rule.is_null() {
        return errors;
    }
    let selectors = rule["clusterRoleSelectors"].as_array().map(Vec::as_slice).unwrap_or_default();
    if selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(PATH, why));
    }
    for (i, selector) in selectors.iter().enumerate() {
        let path = format!("{PATH}[{i}]");
        let wrong = label_selector::validate(&path, selector);
        let cannot_select = !wrong.is_empty();
        errors.extend(wrong);
        if cannot_select {
            errors.push(FieldError::invalid(path, &Value::Null, "invalid label selector."));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_aggregated_role_says_which_roles_it_gathers() {
        let role = |selectors: Value| json!({"aggregationRule": {"clusterRoleSelectors": selectors}});
        assert_eq!(validate(&role(json!([{"matchLabels": {"a": "b"}}])), None), []);
        assert_eq!(validate(&role(json!([])), None)[0].path, "aggregationRule.clusterRoleSelectors");
        let wrong = validate(&role(json!([{"matchLabels": {"a b": "c"}}])), None);
        assert_eq!(wrong[0].path, "aggregationRule.clusterRoleSelectors[0].matchLabels");
        assert_eq!(wrong[1].path, "aggregationRule.clusterRoleSelectors[0]");
        assert_eq!(wrong[1].message, "Invalid value: null: invalid label selector.");
    }
}
