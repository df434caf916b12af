//! The plugins see an object before it is validated: the largest that is taken costs no more than its size.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    extended_resource_tolerations, external_ips,
    owner_references::{self, OwnerReference},
    runtime_class,
    toleration::{self, Toleration},
};

/// Far more than the linear work takes on a slow machine, and far less than anything quadratic.
const LONG: Duration = Duration::from_secs(20);
/// As many tolerations or owners as a body of three megabytes has room for.
const MANY: usize = 60_000;

fn in_time<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let outcome = act();
    assert!(began.elapsed() < LONG, "{what}: {:?}", began.elapsed());
    outcome
}

fn repeated(item: impl Fn(usize) -> Value) -> Value {
    (0..MANY).map(item).collect()
}

/// Differ in their keys, or only in how long they last.
fn tolerations(of_one_key: bool) -> Value {
    repeated(|n| match of_one_key {
        true => json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": n}),
        false => json!({"key": format!("k{n}"), "operator": "Exists"}),
    })
}

#[test]
fn very_many_tolerations_are_merged_and_looked_at_in_time() {
    let read = |of_one_key| -> Vec<Toleration> {
        tolerations(of_one_key).as_array().unwrap().iter().map(Toleration::read).collect()
    };
    let (keys, times) = (read(false), read(true));
    assert_eq!(in_time("keys", || toleration::merge(keys.clone())).len(), MANY);
    assert_eq!(in_time("times", || toleration::merge(times.clone())).len(), 1);
    assert!(in_time("allowed keys", || toleration::are_allowed(&keys, &keys)));
    assert!(!in_time("other keys", || toleration::are_allowed(&keys, &times)));
    let class = runtime_class::read(&json!({"scheduling": {"tolerations": tolerations(true)}}));
    let mut spec = json!({"tolerations": tolerations(false)});
    in_time("class", || runtime_class::set(&mut spec, &class)).unwrap();
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), MANY + 1);
}

#[test]
fn very_many_devices_are_tolerated_in_time() {
    let requests: Value = (0..MANY).map(|n| (format!("a.io/{n}"), json!("1"))).collect();
    let mut spec = json!({"containers": [{"resources": {"requests": requests}}], "tolerations": tolerations(false)});
    in_time("devices", || extended_resource_tolerations::add(&mut spec));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2 * MANY);
}

#[test]
fn very_many_addresses_and_owners_are_compared_in_time() {
    let service = |net: usize| json!({"spec": {"externalIPs": repeated(|n| json!(format!("10.{net}.{n}")))}});
    assert!(!in_time("same addresses", || external_ips::adds_addresses(&service(1), &service(1))));
    assert!(in_time("other addresses", || external_ips::adds_addresses(&service(1), &service(2))));
    let owned = |of: &str| {
        let references = repeated(|n| json!({"uid": format!("{of}{n}"), "blockOwnerDeletion": true}));
        json!({"metadata": {"ownerReferences": references}})
    };
    let (new, old) = (owned("a"), owned("b"));
    let (new, old) = (OwnerReference::all_of(&new), OwnerReference::all_of(&old));
    assert_eq!(in_time("other owners", || owner_references::newly_blocking(&new, &old)).len(), MANY);
    assert!(in_time("same owners", || owner_references::newly_blocking(&new, &new)).is_empty());
}
