//! Patches of the four kinds, good and bad.

use serde_json::{Value, json};

use crate::{
    choice::Choice,
    mutation,
    request::{Body, Request},
    resources::Resource,
};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// One patch of the object at `path`, whose sample is `object`.
pub fn patch(choice: &mut Choice, resource: &Resource, object: &Value, path: &str) -> Request {
    match choice.weighted(&[20, 20, 25, 30, 5]) {
        0 => json_patch(choice, resource, object, path),
        1 => merge(choice, resource, object, path, "merge patch", MERGE_PATCH),
        2 => merge(choice, resource, object, path, "strategic patch", STRATEGIC),
        3 => apply(choice, resource, object, path),
        _ => {
            let wrong = *choice.one(&["application/json", "text/plain", "application/yaml", "a/b/c", JSON_PATCH]);
            Request::new("odd patch", "PATCH", path)
                .content_type(wrong)
                .json(json!({"metadata": {"labels": {"a": "b"}}}))
        }
    }
}

fn json_patch(choice: &mut Choice, resource: &Resource, object: &Value, path: &str) -> Request {
    let request = Request::new("json patch", "PATCH", path).content_type(JSON_PATCH);
    if choice.percent(25) {
        let bad = [
            json!([{"op": "test", "path": "/metadata/name", "value": "other"}]),
            json!([{"op": "remove", "path": "/metadata/labels/missing"}]),
            json!([{"op": "replace", "path": "/metadata/annotations/missing", "value": "x"}]),
            json!([{"op": "add", "path": "/no/such/way", "value": 1}]),
            json!([{"op": "jump", "path": "/metadata/name", "value": "x"}]),
            json!([{"op": "copy", "from": "/metadata/labels", "path": "/metadata/annotations"}]),
            json!([{"op": "move", "from": "/metadata/labels/run", "path": "/metadata/labels/ran"}]),
            json!([{"op": "add", "path": "/metadata/labels/a", "value": 5}]),
            json!({"op": "add"}),
            json!([]),
            json!("x"),
            json!([{"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}]),
        ];
        return request.json(choice.one(&bad).clone());
    }
    let edit = mutation::edit(choice, &resource.schema, object, None);
    let mut changed = object.clone();
    edit.apply(&mut changed);
    let exists = edit.operation(true)["path"].as_str().is_some_and(|path| object.pointer(path).is_some());
    request.json(json!([edit.operation(exists)]))
}

fn merge(
    choice: &mut Choice,
    resource: &Resource,
    object: &Value,
    path: &str,
    verb: &'static str,
    content_type: &'static str,
) -> Request {
    let request = Request::new(verb, "PATCH", path).content_type(content_type);
    if choice.percent(15) {
        let bad = [
            json!([]),
            json!("x"),
            json!({"metadata": {"resourceVersion": "1"}}),
            json!({"metadata": {"uid": "5f0e1d2c-0000-4000-8000-000000000000"}}),
            json!({"metadata": {"name": "other"}}),
            json!({"metadata": {"labels": null, "annotations": {"a": "b"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "z": "y"}}}),
            json!({"metadata": {"finalizers": ["example.com/f"]}}),
            json!({"metadata": {"$patch": "bogus"}}),
            json!({"kind": "Other"}),
            json!({}),
        ];
        return request.json(choice.one(&bad).clone());
    }
    let edit = mutation::edit(choice, &resource.schema, object, None);
    match edit.merge_patch() {
        Some(patch) => request.json(patch),
        // Through a list: the list as it would be.
        None => {
            let mut changed = object.clone();
            edit.apply(&mut changed);
            for field in ["apiVersion", "kind", "metadata"] {
                changed.as_object_mut().expect("an object").shift_remove(field);
            }
            request.json(changed)
        }
    }
}

/// Server-side apply: by one of two managers, sometimes with force, sometimes of another object.
pub fn apply(choice: &mut Choice, resource: &Resource, object: &Value, path: &str) -> Request {
    let mut request = Request::new("apply", "PATCH", path).content_type(APPLY);
    let mut applied = object.clone();
    if choice.percent(70) {
        mutation::edit(choice, &resource.schema, object, None).apply(&mut applied);
    }
    if choice.percent(95) {
        request = request.query("fieldManager", *choice.one(&["one", "two", "two"]));
    }
    if choice.percent(35) {
        request = request.query("force", *choice.one(&["true", "true", "false", "x"]));
    }
    if choice.percent(8) {
        return request.body(Body::Text((*choice.one(&["a: [", "", "kind: X\n", "- a\n", "{}", "5"])).to_owned()));
    }
    request.json(applied)
}
