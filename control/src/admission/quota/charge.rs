//! What a write is charged to one quota, and why it is refused whatever is used.

use serde_json::Value;

use super::{
    limits::Quota,
    measure::{Evaluator, Measure},
    pods,
    refusal::QuotaError,
};
use crate::admission::amounts::{self, Amounts};

/// A write that may take more.
pub struct Charged<'a> {
    /// How it is measured.
    pub evaluator: &'a Evaluator,
    /// The object as it would be stored.
    pub object: &'a Value,
    /// The stored object, on update.
    pub old: Option<&'a Value>,
    /// Unix seconds.
    pub now: i64,
}

/// What the write takes more of a quota; `None` if nothing, or if the quota is not about it.
pub fn growth(quota: &Quota, write: &Charged<'_>) -> Result<Option<Amounts>, QuotaError> {
    let Charged { evaluator, object, old, now } = write;
    let concerned: Vec<&str> = quota.hard.keys().map(String::as_str).filter(|name| evaluator.measures(name)).collect();
    let measure: Measure = evaluator.measure(object);
    if concerned.is_empty() || !measure.is_in(&quota.scopes) {
        return Ok(None);
    }
    if **evaluator == Evaluator::Pods
        && let Some(why) = pods::unspecified(object, |name| concerned.contains(&name))
    {
        return Err(QuotaError::Unspecified { quota: quota.name.clone(), why });
    }
    if concerned.iter().any(|name| !quota.used.contains_key(*name)) {
        // Its controller is about to count.
        let resources = concerned.into_iter().map(str::to_owned).collect();
        return Err(QuotaError::Uncounted { quota: quota.name.clone(), resources });
    }
    let usage = measure.usage(*now);
    let resources: Vec<String> =
        usage.iter().filter(|(_, amount)| amount.is_negative()).map(|(name, _)| name.clone()).collect();
    if !resources.is_empty() {
        return Err(QuotaError::Negative { resources });
    }
    // What was in no scope of the quota before was not charged to it.
    let before = old.map(|old| evaluator.measure(old)).filter(|before| before.is_in(&quota.scopes));
    let mut growth = match before {
        Some(before) => amounts::growth(&usage, &before.usage(*now)),
        None => usage,
    };
    growth.retain(|name, amount| amount.is_positive() && quota.hard.contains_key(name));
    Ok((!growth.is_empty()).then_some(growth))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quota(spec: Value, hard: Value, used: Value) -> Quota {
        Quota::read(&json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}}))
    }

    fn told(quota: &Quota, resource: &str, object: Value, old: Option<Value>) -> String {
        let evaluator = Evaluator::of(resource).unwrap();
        let write = Charged { evaluator: &evaluator, object: &object, old: old.as_ref(), now: 0 };
        growth(quota, &write)
            .map_or_else(|error| error.to_string(), |growth| amounts::text(&growth.unwrap_or_default()))
    }

    fn pod(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    #[test]
    fn a_write_is_charged_what_it_takes_more() {
        let quota = quota(
            json!({}),
            json!({"requests.cpu": "4", "secrets": "1"}),
            json!({"requests.cpu": "0", "secrets": "0"}),
        );
        assert_eq!(told(&quota, "pods", pod("1"), None), "requests.cpu=1");
        assert_eq!(told(&quota, "pods", pod("3"), Some(pod("1"))), "requests.cpu=2");
        assert_eq!(told(&quota, "pods", pod("1"), Some(pod("3"))), "");
        assert_eq!(told(&quota, "secrets", json!({}), None), "secrets=1");
        assert_eq!(told(&quota, "services", json!({}), None), "");
    }

    #[test]
    fn a_pod_that_comes_into_a_scope_is_charged_whole() {
        let quota = quota(json!({"scopes": ["Terminating"]}), json!({"pods": "4"}), json!({"pods": "0"}));
        let mut terminating = pod("1");
        terminating["spec"]["activeDeadlineSeconds"] = json!(5);
        assert_eq!(told(&quota, "pods", terminating.clone(), Some(pod("1"))), "pods=1");
        assert_eq!(told(&quota, "pods", terminating.clone(), Some(terminating)), "");
        assert_eq!(told(&quota, "pods", pod("1"), None), "");
    }

    #[test]
    fn a_quota_says_why_it_refuses() {
        let limited = quota(json!({}), json!({"limits.cpu": "1"}), json!({"limits.cpu": "0"}));
        assert_eq!(told(&limited, "pods", pod("1"), None), "failed quota: q: must specify limits.cpu for: c");
        let unknown = quota(json!({}), json!({"pods": "1", "requests.cpu": "1"}), json!({"pods": "0"}));
        let words = "status unknown for quota: q, resources: pods,requests.cpu";
        assert_eq!(told(&unknown, "pods", pod("1"), None), words);
        let counted = quota(json!({}), json!({"requests.cpu": "1"}), json!({"requests.cpu": "0"}));
        let words = "quota usage is negative for resource(s): cpu,requests.cpu";
        assert_eq!(told(&counted, "pods", pod("-1"), None), words);
    }
}
