//! Where two accounts of who owns the fields of an object say the same, although kube-apiserver's has a fault.

use serde_json::Value;

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
