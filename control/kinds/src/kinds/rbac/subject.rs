//! What RoleBinding and ClusterRoleBinding share: the role that is granted and the subjects that it is granted to.

use serde_json::{Value, json};

use super::GROUP;
use crate::kinds::{
    Cell, Column, FieldError, names,
    pod::defaults::{fill, fill_text},
};

/// Columns of bindings; [`cells`] answers in the same order.
pub const COLUMNS: &[Column] = &[
    Column::name(),
    Column::text("Role", "The role that the binding grants."),
    Column::age(),
    Column::wide("Users", "Users in the binding"),
    Column::wide("Groups", "Groups in the binding"),
    Column::wide("ServiceAccounts", "ServiceAccounts in the binding"),
];

/// The cells of [`COLUMNS`].
pub fn cells(binding: &Value) -> Vec<Cell> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let subjects = || binding["subjects"].as_array().into_iter().flatten();
    let named = |kind: &str| {
        let name = |subject: &Value| match kind {
            "ServiceAccount" => format!("{}/{}", text(&subject["namespace"]), text(&subject["name"])),
            _ => text(&subject["name"]),
        };
        Cell::text(subjects().filter(|subject| subject["kind"] == kind).map(name).collect::<Vec<_>>().join(", "))
    };
    vec![
        Cell::name(binding),
        Cell::text(format!("{}/{}", text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]))),
        Cell::age(binding),
        named("User"),
        named("Group"),
        named("ServiceAccount"),
    ]
}

/// Fills in the API groups of the role and of users and groups.
pub fn default(binding: &mut Value) {
    // Of no reference at all, the group is filled in, too.
    fill(binding, "roleRef", || json!({}));
    fill_text(&mut binding["roleRef"], "apiGroup", GROUP);
    for subject in binding.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if subject["kind"] == "User" || subject["kind"] == "Group" {
            fill_text(subject, "apiGroup", GROUP);
        }
    }
}

/// Why a binding to a role of one of `kinds` may not stand.
pub fn validate(new: &Value, old: Option<&Value>, kinds: &[&str], namespaced: bool) -> Vec<FieldError> {
    let role = &new["roleRef"];
    let mut errors = Vec::new();
    if role["apiGroup"] != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", &role["apiGroup"], &[GROUP]));
    }
    if role["kind"].as_str().is_none_or(|kind| !kinds.contains(&kind)) {
        errors.push(FieldError::not_supported("roleRef.kind", &role["kind"], kinds));
    }
    match role["name"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("roleRef.name", "")),
        name => errors.extend(FieldError::invalid_each("roleRef.name", &role["name"], names::path_segment(name))),
    }
    for (i, subject) in new["subjects"].as_array().into_iter().flatten().enumerate() {
        errors.extend(subject_errors(&format!("subjects[{i}]"), subject, namespaced));
    }
    if old.is_some_and(|old| !same_role(&old["roleRef"], role)) {
        // Kubernetes shows its internal form of the reference.
        let shown = json!({"APIGroup": role["apiGroup"], "Kind": role["kind"], "Name": role["name"]});
        errors.push(FieldError::invalid("roleRef", &shown, "cannot change roleRef"));
    }
    errors
}

fn same_role(a: &Value, b: &Value) -> bool {
    ["apiGroup", "kind", "name"].into_iter().all(|field| a[field] == b[field])
}

fn subject_errors(path: &str, subject: &Value, namespaced: bool) -> Vec<FieldError> {
    let text = |field: &str| subject[field].as_str().unwrap_or_default();
    let (name, group) = (text("name"), text("apiGroup"));
    let mut errors = Vec::new();
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    match text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                let wrong = names::subdomain(name);
                errors.extend(FieldError::invalid_each(format!("{path}.name"), &subject["name"], wrong));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(format!("{path}.apiGroup"), &subject["apiGroup"], &[""]));
            }
            if !namespaced && text("namespace").is_empty() {
                errors.push(FieldError::required(format!("{path}.namespace"), ""));
            }
        }
        "User" | "Group" if group == GROUP => {}
        "User" | "Group" => {
            errors.push(FieldError::not_supported(format!("{path}.apiGroup"), &subject["apiGroup"], &[GROUP]));
        }
        _ => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(format!("{path}.kind"), &subject["kind"], &kinds));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(role: Value, subjects: Value) -> Value {
        let mut binding = json!({"metadata": {"name": "b"}, "roleRef": role, "subjects": subjects});
        default(&mut binding);
        binding
    }

    #[test]
    fn of_no_role_at_all_only_the_group_is_filled_in() {
        let mut none = json!({"metadata": {"name": "b"}});
        default(&mut none);
        let told: Vec<String> = validate(&none, None, &["Role"], true).into_iter().map(|e| e.path).collect();
        assert_eq!(told, ["roleRef.kind", "roleRef.name"]);
    }

    fn words(binding: &Value, old: Option<&Value>) -> Vec<String> {
        let errors = validate(binding, old, &["ClusterRole"], false);
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_binding_grants_a_role_to_subjects() {
        let role = json!({"kind": "ClusterRole", "name": "view"});
        let subjects = json!([{"kind": "User", "name": "jane"}, {"kind": "Group", "name": "devs"},
            {"kind": "ServiceAccount", "name": "ci", "namespace": "a"}]);
        let good = binding(role.clone(), subjects);
        assert_eq!(words(&good, None), Vec::<String>::new());
        let row = cells(&good);
        let shown = [(1, "ClusterRole/view"), (3, "jane"), (4, "devs"), (5, "a/ci")];
        assert!(shown.into_iter().all(|(at, text)| row[at] == Cell::text(text)), "{row:?}");
        let none = words(&binding(Value::Null, json!([])), None);
        assert_eq!(
            none,
            [
                "roleRef.kind: Unsupported value: \"\": supported values: \"ClusterRole\"",
                "roleRef.name: Required value"
            ]
        );
        assert_eq!(
            words(&binding(json!({"kind": "Role", "name": ""}), json!([])), None),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "roleRef.name: Required value"
            ]
        );
        let bad = json!([{"kind": "ServiceAccount", "name": "ci"}, {"kind": "Robot", "name": "r"},
            {"kind": "User", "name": "", "apiGroup": "x"}]);
        assert_eq!(
            words(&binding(role, bad), None),
            [
                "subjects[0].namespace: Required value",
                "subjects[1].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \
                 \"Group\"",
                "subjects[2].name: Required value",
                "subjects[2].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
            ]
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let to = |name: &str| binding(json!({"kind": "ClusterRole", "name": name}), json!([]));
        assert!(words(&to("a"), Some(&to("a"))).is_empty());
        assert_eq!(
            words(&to("b"), Some(&to("a"))),
            ["roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\
                 \"Name\":\"b\"}: cannot change roleRef"]
        );
    }
}
