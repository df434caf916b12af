//! What becomes of a default role or binding that was changed: what is missing comes back, what was added stays. Pure.

use serde_json::{Value, json};

use super::AUTO_UPDATE;
use crate::{
    auth::rbac::{RoleReference, Rule, covers},
    bootstrap::kept::BootstrapRepair,
};

/// What has to be done to a stored object, so that it has all of the wanted one.
pub fn reconcile(stored: &Value, wanted: &Value) -> BootstrapRepair {
    if stored["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return BootstrapRepair::Nothing;
    }
    if wanted["roleRef"].is_object() && RoleReference::of(stored) != RoleReference::of(wanted) {
        // The role of a binding never changes.
        return BootstrapRepair::Recreate;
    }
    let mut repaired = stored.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            // What somebody else set in its place stays.
            if stored["metadata"][field][key].is_null() {
                repaired["metadata"][field][key] = value.clone();
            }
        }
    }
    add_subjects(&mut repaired, wanted);
    add_rules(&mut repaired, stored, wanted);
    add_selectors(&mut repaired, wanted);
    if repaired == *stored { BootstrapRepair::Nothing } else { BootstrapRepair::Replace(repaired) }
}

fn add_subjects(repaired: &mut Value, wanted: &Value) {
    for subject in wanted["subjects"].as_array().into_iter().flatten() {
        push_new(repaired, "subjects", subject);
    }
}

fn add_rules(repaired: &mut Value, stored: &Value, wanted: &Value) {
    // Few rules of this program: the comparison is never too large because of them.
    let missing = covers(&Rule::all_of(stored), &Rule::all_of(wanted)).unwrap_or_else(|_| Rule::all_of(wanted));
    for rule in missing {
        push_new(repaired, "rules", &rule.to_json());
    }
}

fn add_selectors(repaired: &mut Value, wanted: &Value) {
    let rule = &wanted["aggregationRule"];
    if rule.is_null() {
        if repaired["aggregationRule"].is_object()
            && wanted["roleRef"].is_null()
            && let Some(map) = repaired.as_object_mut()
        {
            map.shift_remove("aggregationRule");
        }
        return;
    }
    if !repaired["aggregationRule"].is_object() {
        repaired["aggregationRule"] = json!({});
    }
    for selector in rule["clusterRoleSelectors"].as_array().into_iter().flatten() {
        push_new(&mut repaired["aggregationRule"], "clusterRoleSelectors", selector);
    }
}

/// Adds an item to a list that does not have it.
fn push_new(object: &mut Value, field: &str, item: &Value) {
    match object.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) if list.contains(item) => {}
        Some(list) => list.push(item.clone()),
        None => object[field] = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::rbac::objects;

    fn role() -> Value {
        objects().into_iter().find(|object| object["metadata"]["name"] == "system:basic-user").unwrap()
    }

    fn replaced(stored: &Value, wanted: &Value) -> Value {
        match reconcile(stored, wanted) {
            BootstrapRepair::Replace(object) => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_missing_comes_back_and_what_was_added_stays() {
        let wanted = role();
        assert_eq!(reconcile(&wanted, &wanted), BootstrapRepair::Nothing);
        let mut less = wanted.clone();
        less["rules"].as_array_mut().unwrap().remove(0);
        less["metadata"]["labels"] = json!({"mine": "x"});
        let repaired = replaced(&less, &wanted);
        assert!(covers(&Rule::all_of(&repaired), &Rule::all_of(&wanted)).unwrap().is_empty());
        assert_eq!(repaired["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
        assert_eq!(repaired["metadata"]["labels"]["mine"], "x");
        let mut more = wanted.clone();
        more["rules"].as_array_mut().unwrap().push(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}));
        assert_eq!(reconcile(&more, &wanted), BootstrapRepair::Nothing);
    }

    #[test]
    fn an_object_that_must_not_be_updated_is_left_alone() {
        let wanted = role();
        let mut kept = wanted.clone();
        kept["rules"] = json!([]);
        kept["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(reconcile(&kept, &wanted), BootstrapRepair::Nothing);
    }

    #[test]
    fn a_binding_to_another_role_is_made_anew() {
        let wanted = objects().into_iter().find(|object| object["roleRef"].is_object()).unwrap();
        let mut other = wanted.clone();
        other["roleRef"]["name"] = "other".into();
        assert_eq!(reconcile(&other, &wanted), BootstrapRepair::Recreate);
        let mut emptied = wanted.clone();
        emptied["subjects"] = json!([{"kind": "User", "name": "mine"}]);
        let subjects = replaced(&emptied, &wanted)["subjects"].as_array().unwrap().len();
        assert_eq!(subjects, 1 + wanted["subjects"].as_array().unwrap().len());
    }

    #[test]
    fn an_aggregated_role_gathers_again() {
        let wanted = objects().into_iter().find(|object| object["aggregationRule"].is_object()).unwrap();
        let mut fixed = wanted.clone();
        fixed.as_object_mut().unwrap().shift_remove("aggregationRule");
        assert_eq!(replaced(&fixed, &wanted)["aggregationRule"], wanted["aggregationRule"]);
    }
}
