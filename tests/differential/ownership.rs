//! Where two accounts of who owns the fields of an object say the same, although kube-apiserver's has a fault.

use serde_json::{Map, Value};

/// Lists that have one owner as a whole, of kinds with lists in their items.
const WHOLE_LISTS: [&str; 3] = ["f:devices", "f:limits", "f:rules"];

/// Whether the accounts differ in who owns one list as a whole, and in nothing else.
pub fn differ_in_a_list(ours: &str, theirs: &str) -> bool {
    let (Some(ours), Some(theirs)) = (managers(ours), managers(theirs)) else { return false };
    let (ours, theirs) = (without_lists(ours), without_lists(theirs));
    ours.lists == 1 && theirs.lists == 1 && ours.rest == theirs.rest
}

/// Whether theirs is ours with entries of resizes that own nothing a resize can change.
pub fn differ_in_idle_resizes(ours: &str, theirs: &str) -> bool {
    let (Some(ours), Some(theirs)) = (managers(ours), managers(theirs)) else { return false };
    let changes = |entry: &Value| {
        let fields = entry["fieldsV1"].to_string();
        ["f:resources", "f:resizePolicy"].iter().any(|field| fields.contains(field))
    };
    let is_idle = |entry: &Value| entry["subresource"] == "resize" && !changes(entry);
    let all = theirs.len();
    let rest: Vec<Value> = theirs.into_iter().filter(|entry| !is_idle(entry)).collect();
    rest.len() < all && rest == ours
}

fn managers(list: &str) -> Option<Vec<Value>> {
    serde_json::from_str(list).ok()
}

/// Who owns what beside whole lists, and how many own one.
struct Owners {
    rest: Vec<Value>,
    lists: usize,
}

fn without_lists(managers: Vec<Value>) -> Owners {
    let mut lists = 0;
    let mut rest = Vec::new();
    for mut manager in managers {
        if let Some(fields) = manager.get_mut("fieldsV1").and_then(Value::as_object_mut) {
            lists += take_lists(fields);
            if fields.is_empty() {
                continue;
            }
        }
        rest.push(manager);
    }
    rest.sort_by_key(Value::to_string);
    Owners { rest, lists }
}

fn take_lists(fields: &mut Map<String, Value>) -> usize {
    let before = fields.len();
    fields.retain(|name, _| !WHOLE_LISTS.contains(&&**name));
    let mut taken = before - fields.len();
    if let Some(inner) = fields.get_mut("f:spec").and_then(Value::as_object_mut) {
        taken += take_lists(inner);
        if inner.is_empty() {
            fields.shift_remove("f:spec");
        }
    }
    taken
}
