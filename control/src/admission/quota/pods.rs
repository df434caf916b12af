//! What a pod takes of a quota.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    limits::QuotaScope,
    measure::{Measure, Membership},
};
use crate::{
    admission::{
        amounts::{self, Amounts},
        pod_resources::{self, Reckoning},
    },
    kinds::{
        pod::qos,
        quantity::Quantity,
        reading::{is_empty, items, text},
        resource_name::{is_extended, is_huge_page},
    },
};

/// What decides which scopes a pod is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    terminating: bool,
    best_effort: bool,
    crosses_namespaces: bool,
    priority_class: Option<String>,
}

const NAMES: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// Where a quota limits one of these, every container must say how much it takes.
const DEMANDED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
/// How requests for devices of a class without a resource name of its own begin.
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// Whether a quota measures pods by `name`.
pub fn measures(name: &str) -> bool {
    let requested = name.strip_prefix("requests.");
    NAMES.contains(&name)
        || is_huge_page(name)
        || requested.is_some_and(|name| {
            let vendor = name.contains('/') && !name.contains("kubernetes.io/");
            is_huge_page(name) || vendor || name.starts_with(DEVICE_CLASS)
        })
}

/// Whether the pod ends by itself at a deadline.
pub fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

/// What a pod takes: nothing but its count once it is over, or once it should be gone.
pub fn measure(pod: &Value) -> Measure {
    let status = &pod["status"];
    let living = match text(status, "phase") {
        "Failed" | "Succeeded" => Amounts::new(),
        _ => {
            let requests = pod_resources::requests(pod, Reckoning::Quota);
            let mut all = named(&requests, &pod_resources::limits(pod, Reckoning::Quota));
            all.insert("pods".to_owned(), Quantity::of_units(1));
            all
        }
    };
    let class = text(&pod["spec"], "priorityClassName");
    Measure {
        stored: Amounts::from([("count/pods".to_owned(), Quantity::of_units(1))]),
        living,
        until: gone_at(&pod["metadata"]),
        scopes: Membership::Pod(Facts {
            terminating: is_terminating(pod),
            best_effort: qos::is_best_effort(pod),
            crosses_namespaces: crosses_namespaces(&pod["spec"]["affinity"]),
            priority_class: (!class.is_empty()).then(|| class.to_owned()),
        }),
    }
}

/// When a pod whose deletion was asked for should be gone: it may never be, where its node is lost.
fn gone_at(metadata: &Value) -> Option<i64> {
    let grace = metadata["deletionGracePeriodSeconds"].as_i64()?;
    let deleted: Timestamp = metadata["deletionTimestamp"].as_str()?.parse().ok()?;
    Some(deleted.as_second().saturating_add(grace))
}

/// Requests and limits under the names that quotas have for them.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut all = Amounts::new();
    for (name, amount) in requests {
        let usual = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name);
        if usual {
            all.insert(name.clone(), *amount);
        }
        if usual || is_extended(name) || name.starts_with(DEVICE_CLASS) {
            all.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            all.insert(format!("limits.{name}"), *amount);
        }
    }
    all
}

/// What containers must say and do not: `must specify limits.cpu for: a,b`.
pub fn unspecified(pod: &Value, limited: impl Fn(&str) -> bool) -> Option<String> {
    if pod_resources::has_pod_level(pod) {
        return None;
    }
    let mut missing: Vec<String> = Vec::new();
    for name in DEMANDED.into_iter().filter(|name| limited(name)) {
        let silent = |container: &&Value| {
            let of = |list: &str| amounts::read(&container["resources"][list]);
            !named(&of("requests"), &of("limits")).contains_key(name)
        };
        let containers = ["containers", "initContainers"].into_iter().flat_map(|list| items(&pod["spec"][list]));
        let mut names: Vec<&str> = containers.filter(silent).map(|container| text(container, "name")).collect();
        names.sort_unstable();
        names.dedup();
        if !names.is_empty() {
            missing.push(format!("{name} for: {}", names.join(",")));
        }
    }
    (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
}

fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| !is_empty(&term["namespaces"]) || !term["namespaceSelector"].is_null();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = &affinity[*kind];
        items(&terms["requiredDuringSchedulingIgnoredDuringExecution"]).any(crosses)
            || items(&terms["preferredDuringSchedulingIgnoredDuringExecution"])
                .any(|weighted| crosses(&weighted["podAffinityTerm"]))
    })
}

impl Facts {
    /// Whether the pod is in a scope.
    pub fn is_in(&self, scope: &QuotaScope) -> bool {
        match scope.name.as_str() {
            "Terminating" => self.terminating,
            "NotTerminating" => !self.terminating,
            "BestEffort" => self.best_effort,
            "NotBestEffort" => !self.best_effort,
            "PriorityClass" => scope.selects(self.priority_class.as_deref()),
            "CrossNamespacePodAffinity" => self.crosses_namespaces,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::quota::limits::Quota;

    fn pod(resources: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn a_pod_takes_what_it_requests_and_limits() {
        let resources = json!({"requests": {"cpu": "1", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"},
            "limits": {"cpu": "2", "memory": "1Gi", "example.com/gpu": "2"}});
        let measure = measure(&pod(resources));
        assert_eq!(
            amounts::text(&measure.usage(0)),
            "count/pods=1,cpu=1,hugepages-2Mi=4Mi,limits.cpu=2,limits.memory=1Gi,pods=1,requests.cpu=1,\
            requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi"
        );
        assert!(measure.living.keys().all(|name| measures(name)));
    }

    #[test]
    fn a_pod_that_is_over_is_only_counted() {
        let mut over = pod(json!({"requests": {"cpu": "1"}}));
        over["status"] = json!({"phase": "Succeeded"});
        assert_eq!(amounts::text(&measure(&over).usage(0)), "count/pods=1");
        let mut stuck = pod(json!({"requests": {"cpu": "1"}}));
        stuck["metadata"] = json!({"deletionTimestamp": "1970-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30});
        assert_eq!(amounts::text(&measure(&stuck).usage(90)), "count/pods=1,cpu=1,pods=1,requests.cpu=1");
        assert_eq!(amounts::text(&measure(&stuck).usage(91)), "count/pods=1");
    }

    #[test]
    fn containers_must_say_what_a_quota_limits() {
        let mut pod = pod(json!({"requests": {"cpu": "1"}}));
        pod["spec"]["initContainers"] = json!([{"name": "a"}]);
        let quota = ["pods", "limits.cpu", "requests.cpu", "limits.ephemeral-storage"];
        let limited = |name: &str| quota.contains(&name);
        let words = "must specify limits.cpu for: a,c; requests.cpu for: a";
        assert_eq!(unspecified(&pod, limited).as_deref(), Some(words));
        pod["spec"]["resources"] = json!({"limits": {"cpu": "1"}});
        assert_eq!(unspecified(&pod, limited), None);
    }

    #[test]
    fn a_pod_is_in_the_scopes_that_it_fits() {
        let mut pod = pod(json!({}));
        pod["spec"]["priorityClassName"] = json!("high");
        pod["spec"]["activeDeadlineSeconds"] = json!(5);
        pod["spec"]["affinity"] = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"podAffinityTerm": {"namespaceSelector": {}}}]}});
        let measured = measure(&pod);
        let is_in = |scope: &str| measured.is_in(&Quota::read(&json!({"spec": {"scopes": [scope]}})).scopes);
        for (scope, expected) in [
            ("Terminating", true),
            ("NotTerminating", false),
            ("BestEffort", true),
            ("NotBestEffort", false),
            ("PriorityClass", true),
            ("CrossNamespacePodAffinity", true),
            ("VolumeAttributesClass", false),
        ] {
            assert_eq!(is_in(scope), expected, "{scope}");
        }
    }
}
