//! Lists in a strategic merge patch: items with one key are one item, and the order that a client gave is kept.
//!
//! Every step is linear in the two lists: a body may hold lists of a hundred thousand items.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::strategic::{MergeSchema, PATCH, clean, merge_value};
use crate::status::Status;

/// `current` with the items of `patch`, which are one with those that have the same value under `key`. An empty key
/// means primitives, which are their own keys.
pub fn merge_list(known: MergeSchema, key: &str, current: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, Status> {
    if key.is_empty() {
        let mut merged = current.clone();
        let mut seen: HashSet<&Value> = current.iter().collect();
        merged.extend(patch.iter().filter(|item| seen.insert(item)).cloned());
        return Ok(in_order(key, merged, &patch, &current));
    }
    let before = current.clone();
    let (mut merged, patch) = match list_directives(key, current, patch)? {
        ListChange::Replaced(items) => return Ok(items.into_iter().map(clean).collect()),
        ListChange::Merged { kept, patch } => (kept, patch),
    };
    let mut places: HashMap<Value, usize> = HashMap::with_capacity(merged.len());
    for (at, item) in merged.iter().enumerate() {
        if let Some(id) = item.get(key) {
            places.entry(id.clone()).or_insert(at);
        }
    }
    for item in &patch {
        let Some(id) = item.get(key) else {
            let message = format!("map: {item} does not contain declared merge key: {key}");
            return Err(Status::bad_request(message));
        };
        match places.get(id) {
            Some(at) => merged[*at] = merge_value(known.item(), merged[*at].take(), item.clone())?,
            None => {
                places.insert(id.clone(), merged.len());
                merged.push(item.clone());
            }
        }
    }
    // Ordered first: a key that is null names its item, too.
    Ok(in_order(key, merged, &patch, &before).into_iter().map(clean).collect())
}

/// What the directives of a list's patch come to.
enum ListChange {
    /// These items in the place of all others, as they are: two may have one key (a port number for TCP and UDP).
    Replaced(Vec<Value>),
    /// The current items that were not deleted, and the items to merge into them.
    Merged { kept: Vec<Value>, patch: Vec<Value> },
}

/// Carries out `$patch` in list items: `replace` anywhere makes the rest of the patch the whole list, `delete` takes
/// away the items with the same key. Gives the list and what of the patch is left.
fn list_directives(key: &str, mut current: Vec<Value>, patch: Vec<Value>) -> Result<ListChange, Status> {
    let mut rest = Vec::new();
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).map(|d| d.as_str().unwrap_or_default().to_owned()).as_deref() {
            None => rest.push(item),
            Some("replace") => replace = true,
            Some("delete") => match item.get(key) {
                Some(id) => drop(deleted.insert(id.clone())),
                None => {
                    let message = format!("delete patch type with no merge key defined: {item}");
                    return Err(Status::bad_request(message));
                }
            },
            Some("merge") => return Err(Status::bad_request("merging lists cannot yet be specified in the patch")),
            Some(other) => return Err(Status::bad_request(format!("Unknown patch type: {other}"))),
        }
    }
    current.retain(|old| !old.get(key).is_some_and(|id| deleted.contains(id)));
    Ok(if replace { ListChange::Replaced(rest) } else { ListChange::Merged { kept: current, patch: rest } })
}

/// Puts the items named in `order` in that order, and every other item where it was among them before.
pub fn in_order(key: &str, items: Vec<Value>, order: &[Value], before: &[Value]) -> Vec<Value> {
    let (order, before) = (Places::of(key, order), Places::of(key, before));
    let (mut ordered, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| order.of_item(item).is_some());
    ordered.sort_by_key(|item| order.of_item(item));
    others.sort_by_key(|item| before.of_item(item).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(ordered.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in ordered {
        if let Some(at) = before.of_item(&item) {
            while let Some(other) = others.next_if(|other| before.of_item(other).is_some_and(|place| place < at)) {
                out.push(other);
            }
        }
        out.push(item);
    }
    out.extend(others);
    out
}

/// Where each item of a list stands first.
struct Places<'l> {
    key: &'l str,
    first: HashMap<&'l Value, usize>,
}

impl<'l> Places<'l> {
    fn of(key: &'l str, list: &'l [Value]) -> Self {
        let mut first = HashMap::with_capacity(list.len());
        for (at, item) in list.iter().enumerate() {
            if let Some(id) = id(key, item) {
                first.entry(id).or_insert(at);
            }
        }
        Self { key, first }
    }

    fn of_item(&self, item: &Value) -> Option<usize> {
        self.first.get(id(self.key, item)?).copied()
    }
}

/// What tells an item from others: its value under `key`, or itself.
fn id<'v>(key: &str, item: &'v Value) -> Option<&'v Value> {
    if key.is_empty() { Some(item) } else { item.get(key) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{patch::strategic, schema::Schema};

    #[test]
    fn an_item_whose_key_is_null_stands_where_the_patch_has_it() {
        let account = Schema::builtin("io.k8s.api.core.v1.ServiceAccount").unwrap();
        let patched =
            strategic::apply(&account, &json!({"secrets": [{"name": "a"}]}), &json!({"secrets": [{"name": null}]}));
        assert_eq!(patched.unwrap(), json!({"secrets": [{}, {"name": "a"}]}));
    }

    /// Seconds of the processor that a patch of lists with `count` items takes.
    fn cost(count: usize) -> f64 {
        let pod = Schema::builtin("io.k8s.api.core.v1.Pod").unwrap();
        let containers = |from: usize| -> Value {
            (from..from + count).map(|n| json!({"name": format!("c{n}"), "image": "i"})).collect()
        };
        let finalizers = |from: usize| -> Value { (from..from + count).map(|n| json!(n.to_string())).collect() };
        let half = count / 2;
        let current = json!({"metadata": {"finalizers": finalizers(0)}, "spec": {"containers": containers(0)}});
        let patch = json!({
            "metadata": {"finalizers": finalizers(half), "$deleteFromPrimitiveList/finalizers": finalizers(0)},
            "spec": {"containers": containers(half), "$setElementOrder/containers": containers(half)},
        });
        let started = processor_seconds();
        let patched = strategic::apply(&pod, &current, &patch).unwrap();
        assert_eq!(patched["spec"]["containers"].as_array().unwrap().len(), count + half);
        assert_eq!(patched["metadata"]["finalizers"].as_array().unwrap().len(), half);
        processor_seconds() - started
    }

    /// What this thread has used of a processor: unlike the time of day, the same on a busy machine.
    fn processor_seconds() -> f64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for the call to write to.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    /// Looking for each item in the whole list would make 8 times as many items cost 64 times as much.
    #[test]
    fn long_lists_merge_in_linear_time() {
        let (short, long) = (cost(2_000), cost(16_000));
        assert!(long < short * 32.0, "2,000 items: {short} s, 16,000 items: {long} s");
    }
}
