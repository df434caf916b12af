//! Strategic merge patch: a merge patch in which keyed lists merge item by item.
//!
//! Directives: `$patch: replace | delete` on objects and list items, `$retainKeys`, `$setElementOrder/FIELD`,
//! `$deleteFromPrimitiveList/FIELD`. Source: Kubernetes' "strategic merge patch" design (sig-api-machinery), whose
//! order of steps is kept since clients such as kubectl compute patches for exactly it.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::merge_list::{in_order, merge_list};
use crate::{
    schema::{Merge, Schema, Type, TypeId, Types},
    status::Status,
};

type Object = Map<String, Value>;

/// Applies `patch` to an object of `schema`. Both are JSON objects.
pub fn apply(schema: &Schema, current: &Value, patch: &Value) -> Result<Value, Status> {
    match (current, patch) {
        (Value::Object(current), Value::Object(patch)) => {
            let known = MergeSchema { types: schema.types(), id: Some(schema.root()), merge: None };
            Ok(Value::Object(merge_object(known, current.clone(), patch.clone())?))
        }
        _ => Err(Status::bad_request("error decoding patch: a merge patch must be a JSON object")),
    }
}

/// What the schema says of a value: its type, and how it merges if it is the value of a field. Both are unknown in free
/// JSON, where a patch merges as plain JSON does.
#[derive(Clone, Copy)]
pub struct MergeSchema<'t> {
    types: &'t Types,
    id: Option<TypeId>,
    merge: Option<&'t Merge>,
}

impl<'t> MergeSchema<'t> {
    /// Of a field of an object, or a value of a map.
    fn field(self, name: &str) -> MergeSchema<'t> {
        match self.id.map(|id| self.types.get(id)) {
            Some(Type::Object(object)) => {
                let field = object.field(name);
                MergeSchema { id: field.map(|f| f.r#type), merge: field.map(|f| &f.merge), ..self }
            }
            Some(Type::Map(value)) => MergeSchema { id: Some(*value), merge: None, ..self },
            _ => MergeSchema { id: None, merge: None, ..self },
        }
    }

    /// Of an item of a list.
    pub fn item(self) -> MergeSchema<'t> {
        match self.id.map(|id| self.types.get(id)) {
            Some(Type::List(item)) => MergeSchema { id: Some(*item), merge: None, ..self },
            _ => MergeSchema { id: None, merge: None, ..self },
        }
    }

    /// Whether a patch replaces the value.
    fn is_replaced(self) -> bool {
        self.merge.is_some_and(|merge| merge.replace)
    }

    /// The key by which the items of a list merge; `Some("")` for primitives.
    fn merge_key(self) -> Option<&'t str> {
        self.merge.and_then(|merge| merge.key.as_deref())
    }
}

/// The directive `$patch`.
pub const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

fn merge_object(known: MergeSchema, mut current: Object, mut patch: Object) -> Result<Object, Status> {
    match patch.shift_remove(PATCH) {
        None => {}
        Some(directive) if directive == "replace" => return Ok(without_directives(patch)),
        Some(directive) if directive == "delete" => return Ok(Object::new()),
        Some(other) => return Err(Status::bad_request(format!("Unknown patch type: {other}"))),
    }
    if let Some(retained) = patch.shift_remove(RETAIN_KEYS) {
        retain_keys(&mut current, &patch, &retained)?;
    }
    set_element_orders(known, &mut current, &mut patch)?;
    let mut removed = HashSet::new();
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            if let (Some(list), Value::Array(gone)) = (current.get_mut(field).and_then(Value::as_array_mut), &value) {
                let gone: HashSet<&Value> = gone.iter().collect();
                list.retain(|item| !gone.contains(item));
            }
        } else if value.is_null() {
            removed.insert(key);
        } else if known.field(&key).is_replaced() {
            current.insert(key, clean(value));
        } else if let Some(old) = current.get_mut(&key) {
            let merged = merge_value(known.field(&key), old.take(), value)?;
            *old = merged;
        } else {
            current.insert(key, clean(value));
        }
    }
    if !removed.is_empty() {
        current.retain(|key, _| !removed.contains(key));
    }
    Ok(current)
}

/// Merges one value of a patch into the current one.
pub fn merge_value(known: MergeSchema, current: Value, patch: Value) -> Result<Value, Status> {
    match (current, patch) {
        (Value::Object(current), Value::Object(patch)) => Ok(Value::Object(merge_object(known, current, patch)?)),
        (Value::Array(current), Value::Array(patch)) => match known.merge_key() {
            Some(key) => Ok(Value::Array(merge_list(known, key, current, patch)?)),
            None => Ok(Value::Array(patch.into_iter().filter_map(item_without_directives).collect())),
        },
        (_, patch) => Ok(clean(patch)),
    }
}

/// `$retainKeys` lists every key the object is to have afterwards; the patch may not set another.
fn retain_keys(current: &mut Object, patch: &Object, retained: &Value) -> Result<(), Status> {
    let Some(retained) = retained.as_array() else {
        return Err(Status::bad_request("error decoding patch: $retainKeys must be a list"));
    };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let listed = |key: &str| retained.contains(key);
    if let Some(key) = patch.keys().find(|key| !key.starts_with('$') && !listed(key) && !patch[key.as_str()].is_null())
    {
        return Err(Status::bad_request(format!(
            "error decoding patch: {key} is not in the $retainKeys list of its object"
        )));
    }
    current.retain(|key, _| listed(key));
    Ok(())
}

/// Merges the lists for which the patch gives an order, and takes them out of the patch.
fn set_element_orders(known: MergeSchema, current: &mut Object, patch: &mut Object) -> Result<(), Status> {
    // In one pass: taking them out one by one would move the rest each time.
    let (directives, rest) =
        std::mem::take(patch).into_iter().partition::<Vec<_>, _>(|(key, _)| key.starts_with(SET_ELEMENT_ORDER));
    *patch = rest.into_iter().collect();
    let mut ordered_fields = HashSet::new();
    for (directive, order) in directives {
        let field = directive[SET_ELEMENT_ORDER.len()..].to_owned();
        let Value::Array(order) = order else {
            return Err(Status::bad_request(format!("error decoding patch: {directive} must be a list")));
        };
        let known = known.field(&field);
        // Primitive lists without a key in the schema are ordered as primitives.
        let key = known.merge_key().unwrap_or("");
        let old = current.get(&field).and_then(Value::as_array).cloned();
        let new = match patch.get_mut(&field) {
            None => None,
            Some(items) if items.is_array() => {
                ordered_fields.insert(field.clone());
                items.take().as_array_mut().map(std::mem::take)
            }
            // A null deletes the list, whatever its order was to be.
            Some(_) => continue,
        };
        let merged = match (old.clone(), new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(item_without_directives).collect(),
            (Some(old), Some(new)) => merge_list(known, key, old, new)?,
        };
        let deleted = patch.get(&format!("{DELETE_FROM_PRIMITIVE_LIST}{field}")).and_then(Value::as_array);
        let deleted: HashSet<&Value> = deleted.into_iter().flatten().collect();
        let merged = merged.into_iter().filter(|item| !deleted.contains(item)).collect();
        let ordered = in_order(key, merged, &order, old.as_deref().unwrap_or_default());
        current.insert(field, Value::Array(ordered));
    }
    patch.retain(|key, _| !ordered_fields.contains(key));
    Ok(())
}

/// A value of the patch that stands alone: nulls and directives in it have nothing to act on.
pub fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => Value::Array(items.into_iter().filter_map(item_without_directives).collect()),
        other => other,
    }
}

fn without_directives(map: Object) -> Object {
    map.into_iter()
        .filter(|(key, value)| {
            let directive = key == PATCH
                || key == RETAIN_KEYS
                || key.starts_with(SET_ELEMENT_ORDER)
                || key.starts_with(DELETE_FROM_PRIMITIVE_LIST);
            !directive && !value.is_null()
        })
        .map(|(key, value)| (key, clean(value)))
        .collect()
}

/// An item that only says what to do with others is no item.
fn item_without_directives(item: Value) -> Option<Value> {
    match item.get(PATCH).is_some() {
        true => None,
        false => Some(clean(item)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const POD: &str = "io.k8s.api.core.v1.Pod";

    fn apply(definition: &str, current: &Value, patch: &Value) -> Result<Value, Status> {
        super::apply(&Schema::builtin(definition).unwrap(), current, patch)
    }

    fn patched(current: Value, patch: Value) -> Value {
        apply(POD, &current, &patch).unwrap()
    }

    #[test]
    fn many_orders_are_taken_in_linear_time() {
        let mut patch = Map::new();
        for n in 0..100_000 {
            patch.insert(format!("{SET_ELEMENT_ORDER}k{n}"), json!(["a"]));
            patch.insert(format!("k{n}"), json!(["a"]));
        }
        let begun = std::time::Instant::now();
        let known = MergeSchema { types: Types::builtin(), id: None, merge: None };
        let merged = merge_object(known, Map::new(), patch).unwrap();
        assert_eq!((merged.len(), &merged["k99999"]), (100_000, &json!(["a"])));
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    #[test]
    fn keyed_lists_merge_and_other_lists_are_replaced() {
        let pod = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "args": ["1", "2"]}, {"name": "b", "image": "y"}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "image": "z", "args": ["3"]}]}});
        let expected =
            json!({"spec": {"containers": [{"name": "a", "image": "z", "args": ["3"]}, {"name": "b", "image": "y"}]}});
        assert_eq!(patched(pod, patch), expected);
    }

    #[test]
    fn items_are_deleted_and_lists_replaced_by_directive() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let delete = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
        assert_eq!(patched(pod.clone(), delete), json!({"spec": {"containers": [{"name": "b"}]}}));
        let replace = json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}});
        assert_eq!(patched(pod.clone(), replace), json!({"spec": {"containers": [{"name": "c"}]}}));
        let replace = json!({"spec": {"$patch": "replace", "nodeName": "n"}});
        assert_eq!(patched(pod, replace), json!({"spec": {"nodeName": "n"}}));
    }

    #[test]
    fn the_order_given_by_a_client_is_kept_and_other_items_stay_in_place() {
        let names = |pod: &Value| -> Vec<String> {
            let containers = pod["spec"]["containers"].as_array().unwrap();
            containers.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
        };
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "injected"}, {"name": "b"}]}});
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
            "containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(names(&patched(pod, patch)), ["c", "a", "injected", "b"]);
    }

    #[test]
    fn primitive_lists_merge_and_lose_items_by_directive() {
        let pod = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"],
            "$setElementOrder/finalizers": ["b", "c"], "finalizers": ["c"]}});
        assert_eq!(patched(pod, patch), json!({"metadata": {"finalizers": ["b", "c"]}}));
    }

    #[test]
    fn retained_keys_drop_what_a_change_of_type_leaves_behind() {
        let old = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        let new = apply("io.k8s.api.apps.v1.Deployment", &old, &patch).unwrap();
        assert_eq!(new, json!({"spec": {"strategy": {"type": "Recreate"}}}));
        let volumes = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "emptyDir": null,
            "hostPath": {"path": "/x"}}]}});
        assert_eq!(patched(volumes, patch), json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}));
    }

    #[test]
    fn nulls_delete_and_leave_no_trace_where_there_was_nothing() {
        let pod = json!({"metadata": {"labels": {"a": "1"}}});
        let patch = json!({"metadata": {"labels": {"a": null, "b": null}, "annotations": {"c": null, "d": "e"}}});
        assert_eq!(patched(pod, patch), json!({"metadata": {"labels": {}, "annotations": {"d": "e"}}}));
    }

    #[test]
    fn a_patch_that_makes_no_sense_is_refused() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}});
        for patch in [
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"$patch": "explode"}}),
            json!({"spec": {"$setElementOrder/containers": 3}}),
        ] {
            assert_eq!(apply(POD, &pod, &patch).unwrap_err().code, 400, "{patch}");
        }
    }

    fn containers() -> impl Strategy<Value = Value> {
        let container = ("[a-d]", proptest::option::of("[x-z]")).prop_map(|(name, image)| match image {
            Some(image) => json!({"name": name, "image": image}),
            None => json!({"name": name}),
        });
        proptest::collection::vec(container, 0..5).prop_map(|mut list| {
            list.sort_by_key(|c| c["name"].to_string());
            list.dedup_by_key(|c| c["name"].to_string());
            json!({"spec": {"containers": list}})
        })
    }

    proptest! {
        #[test]
        fn applying_a_patch_twice_is_applying_it_once(current in containers(), patch in containers()) {
            let once = patched(current, patch.clone());
            prop_assert_eq!(patched(once.clone(), patch), once);
        }

        #[test]
        fn an_object_patched_with_itself_stays_as_it_is(current in containers()) {
            prop_assert_eq!(patched(current.clone(), current.clone()), current);
        }
    }
}
