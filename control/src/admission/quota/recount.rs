//! What the status of a quota must be: a pure plan from all objects of its namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    limits::Quota,
    measure::{Evaluator, Measure},
};
use crate::{
    admission::amounts::{self, Amounts},
    kinds::quantity::Quantity,
};

/// The objects of a namespace that one resource has.
pub enum QuotaObjects {
    /// Each as it was measured.
    Measured(Vec<Arc<Measure>>),
    /// How many there are of what is only counted.
    Counted(i64),
}

/// What a quota's status must be, and until when.
#[derive(Debug, PartialEq, Eq)]
pub struct Recount {
    /// `status`, if it is not so already.
    pub status: Option<Value>,
    /// When it must be counted anew although nothing changes: Unix seconds.
    pub until: Option<i64>,
}

/// The resources whose objects a quota measures.
pub fn resources(quota: &Quota) -> BTreeSet<&str> {
    quota.wanted.keys().filter_map(|name| Evaluator::resource_of(name)).collect()
}

/// Counts what a quota measures. `found` has the objects by resource; what is not served is not in it.
pub fn plan(quota: &Quota, found: &BTreeMap<String, QuotaObjects>, now: i64) -> Recount {
    let mut used: Amounts = amounts::mask(&quota.used, &quota.wanted);
    let mut until: Option<i64> = None;
    for resource in resources(quota) {
        let (Some(evaluator), Some(found)) = (Evaluator::of(resource), found.get(resource)) else { continue };
        let mut sum: Amounts =
            quota.wanted.keys().filter(|name| evaluator.measures(name)).map(|name| zero(name)).collect();
        match found {
            QuotaObjects::Counted(count) if quota.scopes.is_empty() => {
                sum.values_mut().for_each(|amount| *amount = Quantity::of_units(*count));
            }
            QuotaObjects::Counted(_) => {}
            QuotaObjects::Measured(all) => {
                for measure in all.iter().filter(|measure| measure.is_in(&quota.scopes)) {
                    amounts::add(&mut sum, &amounts::mask(&measure.usage(now), &quota.wanted));
                    let ends = measure.until.filter(|ends| *ends >= now);
                    until = [until, ends].into_iter().flatten().min();
                }
            }
        }
        used.extend(sum.into_iter().filter(|(name, _)| evaluator.measures(name)));
    }
    let as_it_is = quota.hard == quota.wanted && quota.used == used;
    let status = (!as_it_is).then(|| json!({"hard": amounts::to_json(&quota.wanted), "used": amounts::to_json(&used)}));
    Recount { status, until }
}

fn zero(name: &str) -> (String, Quantity) {
    (name.to_owned(), Quantity::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(pods: Value) -> BTreeMap<String, QuotaObjects> {
        let measured = pods.as_array().unwrap().iter().map(|pod| Arc::new(Evaluator::Pods.measure(pod)));
        BTreeMap::from([
            ("pods".to_owned(), QuotaObjects::Measured(measured.collect())),
            ("secrets".to_owned(), QuotaObjects::Counted(3)),
        ])
    }

    fn pod(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    #[test]
    fn a_new_quota_learns_what_is_used() {
        let hard = json!({"cpu": "4", "pods": "5", "secrets": "9", "requests.memory": "1Gi"});
        let mut quota = json!({"spec": {"hard": hard}});
        let all = pods(json!([pod("1"), pod("500m")]));
        let planned = plan(&Quota::read(&quota), &all, 0);
        let status = planned.status.unwrap();
        assert_eq!(
            status,
            json!({"hard": hard, "used": {"cpu": "1500m", "pods": "2", "requests.memory": "0", "secrets": "3"}})
        );
        quota["status"] = status;
        assert_eq!(plan(&Quota::read(&quota), &all, 0), Recount { status: None, until: None });
        quota["spec"]["hard"] = json!({"cpu": "2"});
        let planned = plan(&Quota::read(&quota), &all, 0).status.unwrap();
        assert_eq!(planned, json!({"hard": {"cpu": "2"}, "used": {"cpu": "1500m"}}));
    }

    #[test]
    fn scopes_count_only_what_is_in_them() {
        let quota = json!({"spec": {"hard": {"pods": "5", "secrets": "9"}, "scopes": ["NotBestEffort"]}});
        let planned = plan(&Quota::read(&quota), &pods(json!([pod("1"), {"spec": {"containers": [{}]}}])), 0);
        assert_eq!(planned.status.unwrap()["used"], json!({"pods": "1", "secrets": "0"}));
    }

    #[test]
    fn what_is_not_served_is_not_known() {
        let quota = Quota::read(&json!({"spec": {"hard": {"count/widgets.example.com": "1"}}}));
        assert_eq!(plan(&quota, &BTreeMap::new(), 0).status.unwrap()["used"], json!({}));
    }

    #[test]
    fn a_pod_that_should_be_gone_is_counted_until_then() {
        let mut stuck = pod("1");
        stuck["metadata"] = json!({"deletionTimestamp": "1970-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30});
        let quota = Quota::read(&json!({"spec": {"hard": {"pods": "5"}}}));
        let all = pods(json!([stuck]));
        let before = plan(&quota, &all, 90);
        assert_eq!((before.status.unwrap()["used"].clone(), before.until), (json!({"pods": "1"}), Some(90)));
        let after = plan(&quota, &all, 91);
        assert_eq!((after.status.unwrap()["used"].clone(), after.until), (json!({"pods": "0"}), None));
    }
}
