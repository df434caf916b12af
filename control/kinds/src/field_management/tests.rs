//! Managers one after another on one object: golden cases, one per rule, and properties.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Tracker, fields_v1, managers::Managers, merge::merge, remove::remove, set::FieldSet, versions::type_of};
use crate::{
    kinds::{Kind, Kinds},
    status::Status,
};

/// An object and who owns its fields.
#[derive(Clone, Default)]
struct State {
    object: Option<Value>,
    managers: String,
}

fn kind(group: &str, version: &str, plural: &str) -> std::sync::Arc<Kind> {
    Kinds::built_in().by_path(group, version, plural).unwrap()
}

/// Does `with` as a manager that writes Deployments (or ConfigMaps, as `object` says).
fn tracked<T>(object: &Value, manager: &str, subresource: Option<&str>, with: impl FnOnce(&Tracker<'_>) -> T) -> T {
    let kinds = Kinds::built_in();
    let served =
        kinds.by_api_version(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
    let stored = served.stored().unwrap();
    with(&Tracker { kinds: &kinds, served: &served, stored, manager, subresource, now: "2024-01-01T00:00:00Z" })
}

impl State {
    fn update(&mut self, manager: &str, object: Value) -> &mut Self {
        let old = self.object.as_ref();
        self.managers = tracked(&object, manager, None, |tracker| tracker.update(old, &object, &self.managers, None));
        self.object = Some(object);
        self
    }

    fn try_apply(&mut self, manager: &str, config: Value, force: bool) -> Result<&mut Self, Status> {
        let old = self.object.as_ref();
        let applied = tracked(&config, manager, None, |t| t.apply(old, &self.managers, &config, force))?;
        // As decoding does: null is nothing.
        self.object = Some(without_nulls(applied.object));
        self.managers = applied.managers;
        Ok(self)
    }

    fn apply(&mut self, manager: &str, config: Value) -> &mut Self {
        self.try_apply(manager, config, false).unwrap()
    }

    fn object(&self) -> &Value {
        self.object.as_ref().unwrap()
    }

    /// `manager operation: fields`, one line each.
    fn owners(&self) -> String {
        let list: Value = serde_json::from_str(&self.managers).unwrap_or(json!([]));
        let line = |entry: &Value| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            format!("{} {}: {}", text("manager"), text("operation"), entry["fieldsV1"])
        };
        list.as_array().unwrap().iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment(replicas: Option<i64>, image: &str) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    if let Some(replicas) = replicas {
        object["spec"]["replicas"] = replicas.into();
    }
    object
}

#[test]
fn an_update_takes_the_fields_that_it_changes() {
    let mut state = State::default();
    state.update("a", map(json!({"x": "1", "y": "1"}))).update("b", map(json!({"x": "1", "y": "2", "z": "1"})));
    assert_eq!(
        state.owners(),
        "a Update: {\"f:data\":{\".\":{},\"f:x\":{}}}\nb Update: {\"f:data\":{\"f:y\":{},\"f:z\":{}}}"
    );
    state.update("a", map(json!({"z": "1"})));
    assert_eq!(state.owners(), "a Update: {\"f:data\":{}}\nb Update: {\"f:data\":{\"f:z\":{}}}");
}

#[test]
fn an_update_that_changes_nothing_leaves_the_account_as_it_is() {
    let mut state = State::default();
    let before = state.update("a", map(json!({"x": "1"}))).managers.clone();
    assert_eq!(state.update("b", map(json!({"x": "1"}))).managers, before);
}

#[test]
fn what_an_applier_leaves_out_goes_unless_somebody_else_owns_it() {
    let mut state = State::default();
    state.apply("a", map(json!({"x": "1", "y": "1"}))).apply("b", map(json!({"y": "1"})));
    // An apply that changes nothing has no time, and stands first: as in Kubernetes.
    assert_eq!(state.owners(), "b Apply: {\"f:data\":{\"f:y\":{}}}\na Apply: {\"f:data\":{\"f:x\":{},\"f:y\":{}}}");
    state.apply("a", map(json!({})));
    assert_eq!(state.object()["data"], json!({"y": "1"}));
    state.apply("b", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}));
    assert_eq!(state.object().get("data"), None);
    // `data: {}` is still somebody's word.
    assert_eq!(state.owners(), "a Apply: {\"f:data\":{}}");
}

#[test]
fn what_an_updater_owns_stays_when_an_applier_gives_it_up() {
    let mut state = State::default();
    state.apply("a", deployment(Some(1), "i")).update("scaler", deployment(Some(5), "i"));
    state.apply("a", deployment(None, "i"));
    assert_eq!(state.object()["spec"]["replicas"], 5);
    assert!(state.owners().contains("scaler Update: {\"f:spec\":{\"f:replicas\":{}}}"), "{}", state.owners());
}

#[test]
fn an_applier_conflicts_with_owners_of_other_values_and_force_takes_them() {
    let mut state = State::default();
    state.apply("a", deployment(Some(1), "i")).update("scaler", deployment(Some(5), "i"));
    let refused = state.clone().try_apply("a", deployment(Some(2), "i"), false).err().unwrap();
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas");
    assert_eq!((refused.code, refused.reason), (409, "Conflict"));
    let refused = state.clone().try_apply("b", deployment(Some(2), "j"), false).err().unwrap();
    let expected = concat!(
        "Apply failed with 2 conflicts: conflicts with \"a\":\n",
        "- .spec.template.spec.containers[name=\"c\"].image\n",
        "conflicts with \"scaler\" using apps/v1:\n- .spec.replicas"
    );
    assert_eq!(refused.message, expected);
    state.try_apply("b", deployment(Some(2), "j"), true).unwrap();
    assert_eq!((&state.object()["spec"]["replicas"], state.owners().contains("scaler")), (&json!(2), false));
    // The same value may be anybody's.
    state.apply("c", deployment(Some(2), "j"));
}

#[test]
fn items_of_keyed_lists_come_and_go_one_by_one() {
    let with = |containers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"template": {"spec": {"containers": containers}}}})
    };
    let mut state = State::default();
    state.apply("a", with(json!([{"name": "x", "image": "i"}, {"name": "y", "image": "i"}])));
    state.apply(
        "sidecars",
        with(json!([{"name": "s", "image": "i"}, {"name": "y", "env": [{"name": "E", "value": "1"}]}])),
    );
    state.apply("a", with(json!([{"name": "x", "image": "j"}])));
    let expected = json!([{"name": "x", "image": "j"}, {"name": "s", "image": "i"},
        {"name": "y", "env": [{"name": "E", "value": "1"}]}]);
    assert_eq!(state.object()["spec"]["template"]["spec"]["containers"], expected);
    state.apply("sidecars", with(json!([])));
    assert_eq!(state.object()["spec"]["template"]["spec"]["containers"], json!([{"name": "x", "image": "j"}]));
}

#[test]
fn sets_hold_what_any_applier_names() {
    let with = |finalizers: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "finalizers": finalizers}});
    let mut state = State::default();
    state.apply("a", with(json!(["x/1", "x/2"]))).apply("b", with(json!(["x/2", "x/3"]))).apply("a", with(json!([])));
    assert_eq!(state.object()["metadata"]["finalizers"], json!(["x/2", "x/3"]));
}

#[test]
fn an_object_without_an_account_is_given_one_by_its_first_apply() {
    let mut state = State { object: Some(map(json!({"x": "1", "y": "1"}))), managers: String::new() };
    state.update("a", map(json!({"x": "2", "y": "1"})));
    assert_eq!(state.managers, "");
    let refused = state.clone().try_apply("b", map(json!({"x": "3"})), false).err().unwrap();
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x");
    state.apply("b", map(json!({"x": "2"})));
    assert_eq!(
        state.owners(),
        "b Apply: {\"f:data\":{\"f:x\":{}}}\nbefore-first-apply Update: {\"f:data\":{\".\":{},\"f:x\":{},\"f:y\":{}}}"
    );
}

#[test]
fn a_client_may_change_or_reset_the_account_through_the_main_resource() {
    let mut state = State::default();
    state.update("a", map(json!({"x": "1"})));
    let (old, new) = (map(json!({"x": "1"})), map(json!({"x": "2"})));
    let update = |sent: Value, subresource| {
        tracked(&new, "b", subresource, |t| t.update(Some(&old), &new, &state.managers, Some(&sent)))
    };
    for reset in [json!([]), json!([{}])] {
        assert_eq!(update(reset.clone(), None), "");
        assert!(update(reset, Some("status")).contains("\"a\""));
    }
    let created = tracked(&new, "b", None, |t| t.update(None, &new, "", Some(&json!([{}]))));
    assert!(created.contains("\"b\""), "a new object has no account to forget: {created}");
    assert!(update(json!([{"operation": "Nonsense"}]), None).contains("\"a\""));
    assert!(update(json!(null), None).contains("\"a\""));
    let mine = json!([{"manager": "mine", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:q": {}}}}]);
    let changed = update(mine, None);
    assert!(changed.contains("\"mine\"") && changed.contains("\"b\"") && !changed.contains("\"a\""), "{changed}");
}

#[test]
fn a_scale_to_nothing_is_owned_by_nobody() {
    let deployment = |replicas: i64| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
    let owners = |replicas: i64| {
        let (old, new) = (deployment(3), deployment(replicas));
        let before = tracked(&old, "a", None, |t| t.update(None, &old, "", None));
        tracked(&new, "b", Some("scale"), |t| t.update(Some(&old), &new, &before, None))
    };
    assert!(owners(1).contains("\"b\"") && !owners(0).contains("\"b\""), "{}", owners(0));
    assert!(!owners(0).contains("f:replicas"), "it is no longer the first one's either: {}", owners(0));
}

#[test]
fn managers_of_other_versions_give_up_what_changes_in_theirs() {
    let old = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1, "paused": true}});
    let new = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2, "paused": true}});
    let entry = |version: &str| {
        format!(
            r#"{{"manager":"{version}","operation":"Update","apiVersion":"{version}","fieldsType":"FieldsV1","fieldsV1":{{"f:spec":{{"f:paused":{{}},"f:replicas":{{}}}}}}}}"#
        )
    };
    let managers = format!("[{},{}]", entry("apps/v1beta2"), entry("apps/v99"));
    let updated = tracked(&new, "me", None, |t| t.update(Some(&old), &new, &managers, None));
    let owned: Value = serde_json::from_str(&updated).unwrap();
    assert_eq!(owned.as_array().unwrap().len(), 2, "a version that is gone is forgotten: {updated}");
    assert_eq!(owned[0]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned[1]["manager"], "me");
}

#[test]
fn a_write_through_a_subresource_has_an_entry_of_its_own() {
    let mut state = State::default();
    state.update("a", deployment(Some(1), "i"));
    let old = state.object().clone();
    let mut new = old.clone();
    new["status"] = json!({"replicas": 1});
    new["spec"]["replicas"] = json!(7);
    let updated = tracked(&new, "a", Some("status"), |t| t.update(Some(&old), &new, &state.managers, None));
    let owned: Value = serde_json::from_str(&updated).unwrap();
    assert_eq!(
        (&owned[1]["subresource"], &owned[1]["fieldsV1"]),
        (&json!("status"), &json!({"f:status": {"f:replicas": {}}}))
    );
    assert!(owned[0]["fieldsV1"]["f:spec"]["f:replicas"].is_object(), "the spec cannot be changed there");
}

#[test]
fn kubectl_goes_on_where_client_side_apply_left_off() {
    let annotated = |data: Value| {
        let mut object = map(data.clone());
        object["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": map(data).to_string()});
        object
    };
    let mut state = State::default();
    state.update("kubectl-client-side-apply", annotated(json!({"x": "1", "y": "1"})));
    let refused = state.clone().try_apply("somebody", map(json!({"x": "2"})), false).err().unwrap();
    assert_eq!(refused.code, 409);
    state.apply("kubectl", map(json!({"x": "2"})));
    let applied = &state.object()["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    let expected =
        "{\"apiVersion\":\"v1\",\"data\":{\"x\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"m\"}}\n";
    assert_eq!(applied, expected);
    // What another one changed since is a conflict.
    let mut state = State::default();
    state.update("kubectl-client-side-apply", annotated(json!({"x": "1"})));
    let mut changed = annotated(json!({"x": "1"}));
    changed["data"]["x"] = json!("9");
    state.update("other", changed);
    assert_eq!(state.try_apply("kubectl", map(json!({"x": "2"})), false).err().unwrap().code, 409);
}

#[test]
fn a_configuration_must_fit_its_kind() {
    let refuse =
        |config: Value| tracked(&map(json!({})), "m", None, |t| t.apply(None, "", &config, false)).err().unwrap();
    let mut unknown = map(json!({}));
    unknown["nope"] = json!(1);
    let refused = refuse(unknown);
    assert_eq!(
        (refused.code, &*refused.message),
        (500, "failed to create typed patch object (/m; /v1, Kind=ConfigMap): .nope: field not declared in schema")
    );
    let refused = refuse(json!({"apiVersion": "v1", "kind": "Secret"}));
    assert_eq!((refused.code, &*refused.message), (400, "invalid object type: /v1, Kind=Secret"));
    let mut managed = map(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(refuse(managed).message, "metadata.managedFields must be nil");
}

#[test]
fn stored_accounts_of_many_updaters_stay_bounded() {
    let mut state = State::default();
    for n in 0..30 {
        let data: Value = (0..=n).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
        state.update(&format!("m{n}"), map(data));
    }
    let entries: Value = serde_json::from_str(&state.managers).unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 10);
}

/// ConfigMaps and Deployments with a few fields.
fn any_config() -> impl Strategy<Value = Value> {
    let data = prop::collection::btree_map("[a-d]", "[x-z]", 0..4);
    let labels = prop::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let container = ("[a-c]", prop::option::of("[i-j]"), prop::collection::btree_map("[A-C]", "[0-1]", 0..3)).prop_map(
        |(name, image, env)| {
            let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            json!({"name": name, "image": image, "env": env})
        },
    );
    let containers = prop::collection::vec(container, 0..3).prop_map(|mut list| {
        list.sort_by_key(|c| c["name"].to_string());
        list.dedup_by_key(|c| c["name"].to_string());
        list
    });
    let finalizers = prop::collection::btree_set("x/[a-c]", 0..3);
    (data, labels, containers, finalizers, 0..4_i64).prop_map(|(data, labels, containers, finalizers, replicas)| {
        without_nulls(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "labels": labels, "annotations": data, "finalizers": finalizers},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}}}))
    })
}

/// All that an account says, as one set.
fn all_owned(managers: &str) -> FieldSet<'_> {
    let mut managers = Managers::stored(managers).unwrap();
    let mut all = FieldSet::default();
    for manager in managers.iter_mut() {
        all = all.union(manager.fields().clone());
    }
    all
}

proptest! {
    #[test]
    fn to_apply_twice_changes_nothing(live in any_config(), config in any_config()) {
        let mut state = State::default();
        state.update("a", live).try_apply("b", config.clone(), true).unwrap();
        let (object, managers) = (state.object().clone(), state.managers.clone());
        state.apply("b", config);
        prop_assert_eq!(state.object(), &object);
        prop_assert_eq!(&state.managers, &managers);
    }

    #[test]
    fn an_applied_object_says_what_the_configuration_says(live in any_config(), config in any_config()) {
        let mut state = State::default();
        state.update("a", live).try_apply("b", config.clone(), true).unwrap();
        let deployments = kind("apps", "v1", "deployments");
        let again = merge(type_of(&deployments), Some(state.object()), Some(&config)).unwrap().unwrap();
        prop_assert_eq!(without_nulls(again), state.object().clone());
    }

    #[test]
    fn every_owned_field_is_there_and_every_leaf_is_owned(first in any_config(), rest in prop::collection::vec((any_config(), 0..3_usize), 0..4)) {
        let mut state = State::default();
        state.update("a", first);
        for (object, by) in rest {
            match by {
                0 => drop(state.update("a", object)),
                1 => drop(state.update("b", object)),
                _ => drop(state.try_apply("c", object, true).unwrap()),
            }
        }
        let deployments = kind("apps", "v1", "deployments");
        let of = type_of(&deployments);
        let owned = all_owned(&state.managers);
        // To take out all that is owned leaves nothing but what nobody owns.
        let rest = without_nulls(remove(of, state.object(), &owned).unwrap());
        let leaves = super::leaves::leaves(of, &rest).unwrap();
        let mut left = leaves.clone();
        super::reset::strip(&mut left);
        let left: Vec<String> = left.paths().iter().map(|path| super::path::display(path)).collect();
        // What is left are shells: lists' and maps' own presence.
        prop_assert!(left.iter().all(|path| state.object().pointer(&path.replace('.', "/")).is_some_and(|v| v.is_object())), "{:?}", left);
    }

    #[test]
    fn stored_text_is_read_back(first in any_config(), second in any_config()) {
        let mut state = State::default();
        state.update("a", first).try_apply("b", second, true).unwrap();
        let mut read = Managers::stored(&state.managers).unwrap();
        read.iter_mut().for_each(|manager| _ = manager.fields());
        prop_assert_eq!(read.print(), state.managers.clone());
        let sent: Value = serde_json::from_str(&state.managers).unwrap();
        prop_assert_eq!(Managers::sent(&sent).unwrap().print(), state.managers);
    }
}

#[test]
fn sets_are_printed_in_one_spelling() {
    let text = r#"{"f:b":{},"f:a":{}}"#;
    assert_eq!(fields_v1::print(&fields_v1::parse(text).unwrap()), r#"{"f:a":{},"f:b":{}}"#);
}
