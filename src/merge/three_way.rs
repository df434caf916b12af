//! Computes the patch of a three-way merge. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::strategy::{Strategy, is_built_in, strategy};

/// How objects of one kind are merged.
#[derive(Clone, Copy, Debug)]
pub enum Schema<'a> {
    /// A kind of Kubernetes' own: strategic merge.
    Strategic { kind: &'a str },
    /// Any other: JSON merge, lists are replaced whole.
    Json,
}

impl<'a> Schema<'a> {
    /// The schema of a kind: strategic for built-in ones, plain JSON for the others.
    pub fn of(group: &str, kind: &'a str) -> Self {
        if is_built_in(group) { Self::Strategic { kind } } else { Self::Json }
    }

    fn strategy(self, path: &[&str]) -> Strategy {
        match self {
            Self::Strategic { kind } => strategy(kind, path),
            Self::Json => Strategy::Plain,
        }
    }
}

/// The patch that makes `current` hold what `modified` says and drops what `original` said and `modified` no longer
/// does. An empty map means that nothing is to change.
pub fn three_way(schema: Schema, original: &Value, modified: &Value, current: &Value) -> Value {
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    Value::Object(merge_maps(schema, &mut Vec::new(), &map(original), &map(modified), &map(current)))
}

fn merge_maps<'m>(
    schema: Schema,
    path: &mut Vec<&'m str>,
    original: &Map<String, Value>,
    modified: &'m Map<String, Value>,
    current: &Map<String, Value>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, new) in modified {
        let Some(live) = current.get(key) else {
            if !new.is_null() {
                patch.insert(key.clone(), new.clone());
            }
            continue;
        };
        let old = original.get(key).unwrap_or(&Value::Null);
        path.push(key);
        merge_field(schema, path, key, (old, new, live), &mut patch);
        path.pop();
    }
    for key in original.keys().filter(|key| !modified.contains_key(*key) && current.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    patch
}

fn merge_field<'m>(
    schema: Schema,
    path: &mut Vec<&'m str>,
    key: &str,
    (old, new, live): (&Value, &'m Value, &Value),
    patch: &mut Map<String, Value>,
) {
    match (new, live, schema.strategy(path)) {
        (Value::Object(new), Value::Object(live), strategy) => {
            let old = old.as_object().cloned().unwrap_or_default();
            let mut inner = merge_maps(schema, path, &old, new, live);
            if strategy == Strategy::RetainKeys {
                retain_keys(&mut inner, new, live);
            }
            if !inner.is_empty() {
                patch.insert(key.to_owned(), Value::Object(inner));
            }
        }
        (Value::Array(new), Value::Array(live), Strategy::MergeBy(by)) => {
            merge_list(schema, path, List { key, by, retain: false }, (old, new, live), patch);
        }
        (Value::Array(new), Value::Array(live), Strategy::MergeByRetainingKeys(by)) => {
            merge_list(schema, path, List { key, by, retain: true }, (old, new, live), patch);
        }
        (Value::Array(new), Value::Array(live), Strategy::MergeSet) => merge_set(key, (old, new, live), patch),
        (new, live, _) if !same(new, live) => {
            patch.insert(key.to_owned(), new.clone());
        }
        _ => {}
    }
}

/// `$retainKeys` names the keys that stay; without it, keys of the former type would stay beside the new ones.
fn retain_keys(patch: &mut Map<String, Value>, new: &Map<String, Value>, live: &Map<String, Value>) {
    let leaves = live.keys().any(|key| !new.contains_key(key));
    if !patch.is_empty() && leaves {
        let keys: BTreeSet<&String> = new.keys().collect();
        patch.insert("$retainKeys".into(), json!(keys));
    }
}

/// A list of maps and how its elements are told apart.
struct List<'a> {
    key: &'a str,
    by: &'static str,
    retain: bool,
}

fn merge_list<'m>(
    schema: Schema,
    path: &mut Vec<&'m str>,
    list: List,
    (old, new, live): (&Value, &'m [Value], &[Value]),
    patch: &mut Map<String, Value>,
) {
    let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
    let by = list.by;
    if !are_unique_by(new, by) || !are_unique_by(live, by) {
        // Two ports of one number (TCP and UDP) cannot be merged by it: the list is replaced as a whole.
        if !same(&json!(new), &json!(live)) {
            let mut whole = new.to_vec();
            whole.push(json!({"$patch": "replace"}));
            patch.insert(list.key.to_owned(), Value::Array(whole));
        }
        return;
    }
    let find = |items: &[Value], id: &Value| items.iter().find(|item| same(&item[by], id)).cloned();
    let mut changes = Vec::new();
    for element in new {
        let (Some(element), id) = (element.as_object(), &element[by]) else { continue };
        let Some(Value::Object(held)) = find(live, id) else {
            changes.push(Value::Object(element.clone()));
            continue;
        };
        let before = find(old, id).and_then(|v| v.as_object().cloned()).unwrap_or_default();
        let mut inner = merge_maps(schema, path, &before, element, &held);
        if list.retain {
            retain_keys(&mut inner, element, &held);
        }
        if !inner.is_empty() {
            inner.insert(by.to_owned(), id.clone());
            changes.push(Value::Object(inner));
        }
    }
    for gone in old.iter().filter(|item| find(new, &item[by]).is_none() && find(live, &item[by]).is_some()) {
        changes.push(json!({"$patch": "delete", by: gone[by]}));
    }
    let held: Vec<&Value> = live.iter().map(|item| &item[by]).filter(|id| find(new, id).is_some()).collect();
    let wanted: Vec<&Value> = new.iter().map(|item| &item[by]).filter(|id| find(live, id).is_some()).collect();
    let reordered = held.iter().zip(&wanted).any(|(a, b)| !same(a, b));
    if !changes.is_empty() || reordered {
        let order: Vec<Value> = new.iter().map(|item| json!({by: item[by]})).collect();
        patch.insert(format!("$setElementOrder/{}", list.key), Value::Array(order));
    }
    if !changes.is_empty() {
        patch.insert(list.key.to_owned(), Value::Array(changes));
    }
}

fn merge_set(key: &str, (old, new, live): (&Value, &[Value], &[Value]), patch: &mut Map<String, Value>) {
    let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
    let added: Vec<Value> = new.iter().filter(|item| !live.contains(item)).cloned().collect();
    let gone: Vec<Value> = old.iter().filter(|item| !new.contains(item) && live.contains(item)).cloned().collect();
    if !added.is_empty() || !gone.is_empty() {
        patch.insert(format!("$setElementOrder/{key}"), json!(new));
    }
    if !gone.is_empty() {
        patch.insert(format!("$deleteFromPrimitiveList/{key}"), Value::Array(gone));
    }
    if !added.is_empty() {
        patch.insert(key.to_owned(), Value::Array(added));
    }
}

fn are_unique_by(items: &[Value], by: &str) -> bool {
    let ids: BTreeSet<String> = items.iter().map(|item| item[by].to_string()).collect();
    ids.len() == items.len() && items.iter().all(|item| !item[by].is_null())
}

/// Equal as JSON values; `1` and `1.0` are one number, and a key that is null is as good as absent.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let covered = |x: &Map<String, Value>, y: &Map<String, Value>| {
                x.iter().all(|(key, value)| same(value, y.get(key).unwrap_or(&Value::Null)))
            };
            covered(a, b) && covered(b, a)
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: Schema = Schema::Strategic { kind: "Deployment" };
    const SERVICE: Schema = Schema::Strategic { kind: "Service" };

    fn pod_template(containers: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn what_is_held_already_needs_no_patch() {
        let applied = json!({"spec": {"replicas": 2}});
        let current = json!({"spec": {"replicas": 2, "revisionHistoryLimit": 10}, "status": {}});
        assert_eq!(three_way(DEPLOYMENT, &applied, &applied, &current), json!({}));
    }

    #[test]
    fn a_field_that_is_no_longer_applied_is_dropped_and_one_set_by_others_stays() {
        let patch = three_way(
            DEPLOYMENT,
            &json!({"spec": {"replicas": 2, "paused": true}}),
            &json!({"spec": {"paused": false}}),
            &json!({"spec": {"replicas": 5, "paused": true, "minReadySeconds": 3}}),
        );
        assert_eq!(patch, json!({"spec": {"paused": false, "replicas": null}}));
    }

    #[test]
    fn containers_are_merged_by_name_and_keep_what_others_injected() {
        let patch = three_way(
            DEPLOYMENT,
            &pod_template(json!([{"name": "web", "image": "a:1"}, {"name": "old", "image": "o"}])),
            &pod_template(json!([{"name": "web", "image": "a:2"}])),
            &pod_template(
                json!([{"name": "web", "image": "a:1", "imagePullPolicy": "Always"}, {"name": "old", "image": "o"},
                {"name": "injected", "image": "i"}]),
            ),
        );
        assert_eq!(
            patch,
            pod_template(json!([{"image": "a:2", "name": "web"}, {"$patch": "delete", "name": "old"}])).merged(json!({
                "spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "web"}]}}}}))
        );
    }

    #[test]
    fn a_new_environment_variable_goes_into_its_container_alone() {
        let before = pod_template(json!([{"name": "web", "env": [{"name": "A", "value": "1"}]}]));
        let after =
            pod_template(json!([{"name": "web", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]));
        let patch = three_way(DEPLOYMENT, &before, &after, &before);
        assert_eq!(
            patch["spec"]["template"]["spec"]["containers"],
            json!([{"$setElementOrder/env": [{"name": "A"}, {"name": "B"}], "env": [{"name": "B", "value": "2"}],
                "name": "web"}])
        );
    }

    #[test]
    fn service_ports_are_merged_by_port() {
        let before = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
        let after = json!({"spec": {"ports": [{"port": 80, "targetPort": 9090}]}});
        let current =
            json!({"spec": {"ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": 31000}]}});
        assert_eq!(
            three_way(SERVICE, &before, &after, &current),
            json!({"spec": {"$setElementOrder/ports": [{"port": 80}], "ports": [{"targetPort": 9090, "port": 80}]}})
        );
    }

    #[test]
    fn two_ports_of_one_number_replace_the_list() {
        let after = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}});
        let current = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
        let patch = three_way(SERVICE, &json!({}), &after, &current);
        assert_eq!(patch["spec"]["ports"][2], json!({"$patch": "replace"}));
    }

    #[test]
    fn a_deployment_strategy_that_changes_its_type_sheds_the_former_ones_settings() {
        let before = json!({"spec": {"strategy": {"type": "RollingUpdate"}}});
        let after = json!({"spec": {"strategy": {"type": "Recreate"}}});
        let current = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}}});
        assert_eq!(
            three_way(DEPLOYMENT, &before, &after, &current),
            json!({"spec": {"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}})
        );
    }

    #[test]
    fn a_custom_kinds_lists_are_replaced_whole() {
        let patch = three_way(
            Schema::of("example.com", "Widget"),
            &json!({"spec": {"containers": [{"name": "a"}]}}),
            &json!({"spec": {"containers": [{"name": "b"}]}}),
            &json!({"spec": {"containers": [{"name": "a"}, {"name": "c"}]}}),
        );
        assert_eq!(patch, json!({"spec": {"containers": [{"name": "b"}]}}));
    }

    #[test]
    fn finalizers_are_merged_as_a_set() {
        let patch = three_way(
            SERVICE,
            &json!({"metadata": {"finalizers": ["a", "b"]}}),
            &json!({"metadata": {"finalizers": ["b", "c"]}}),
            &json!({"metadata": {"finalizers": ["a", "b", "x"]}}),
        );
        assert_eq!(
            patch,
            json!({"metadata": {"$setElementOrder/finalizers": ["b", "c"],
                "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}})
        );
    }

    trait Merged {
        fn merged(self, other: Value) -> Value;
    }

    impl Merged for Value {
        fn merged(mut self, other: Value) -> Value {
            json_patch::merge(&mut self, &other);
            self
        }
    }
}
