//! The rules of a Role or ClusterRole: reasons why one means nothing.

use serde_json::Value;

use crate::kinds::FieldError;

/// Why the rules of a role may not stand. Rules on paths that are no resources are for ClusterRoles only.
pub fn validate(role: &Value, namespaced: bool) -> Vec<FieldError> {
    let rules = role["rules"].as_array().into_iter().flatten().enumerate();
    rules.flat_map(|(i, rule)| rule_errors(&format!("rules[{i}]"), rule, namespaced)).collect()
}

fn rule_errors(path: &str, rule: &Value, namespaced: bool) -> Vec<FieldError> {
    let empty = |field: &str| rule[field].as_array().is_none_or(Vec::is_empty);
    let mut errors = Vec::new();
    if empty("verbs") {
        errors.push(FieldError::required(format!("{path}.verbs"), "verbs must contain at least one value"));
    }
    if !empty("nonResourceURLs") {
        let wrong = |why| FieldError::invalid(format!("{path}.nonResourceURLs"), &rule["nonResourceURLs"], why);
        if namespaced {
            errors.push(wrong("namespaced rules cannot apply to non-resource URLs"));
        }
        if ["apiGroups", "resources", "resourceNames"].into_iter().any(|field| !empty(field)) {
            errors.push(wrong("rules cannot apply to both regular resources and non-resource URLs"));
        }
        return errors;
    }
    if empty("apiGroups") {
        let why = "resource rules must supply at least one api group";
        errors.push(FieldError::required(format!("{path}.apiGroups"), why));
    }
    if empty("resources") {
        let why = "resource rules must supply at least one resource";
        errors.push(FieldError::required(format!("{path}.resources"), why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_is_about_resources_or_about_paths() {
        let words = |rule: Value, namespaced: bool| -> Vec<String> {
            let errors = validate(&json!({"rules": [rule]}), namespaced);
            errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
        };
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        assert!(words(pods, true).is_empty());
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]});
        assert!(words(paths.clone(), false).is_empty());
        assert_eq!(
            words(paths, true),
            ["rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to \
                 non-resource URLs"]
        );
        assert_eq!(
            words(json!({}), true),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
        let both = json!({"verbs": ["get"], "nonResourceURLs": ["/a"], "resources": ["pods"]});
        assert!(words(both, false)[0].ends_with("both regular resources and non-resource URLs"));
    }
}
