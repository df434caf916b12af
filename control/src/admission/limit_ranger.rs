//! LimitRanger: what containers get that say nothing of their resources, and between which amounts containers, pods and
//! claims of a namespace must stay.
//!
//! Source: `plugin/pkg/admission/limitranger`, whose words these are.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    amounts::{self, Amounts},
    plugins::{AdmissionContext, Mutate, Plugin, Validate},
    pod_resources::{self, Reckoning},
};
use crate::{
    admission_plugins::PluginName,
    kinds::{
        quantity::Quantity,
        reading::{items, text},
    },
    request::{Verb, WriteRequest},
    status::Status,
};

/// Where LimitRanges are stored.
pub const RESOURCE: &str = "limitranges";

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Pods get defaults; pods and claims keep to the limits.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(mutate)),
    validate: Some(Validate::Now(validate)),
    ..Plugin::named(PluginName::LimitRanger)
};

fn mutate(context: &AdmissionContext<'_>, object: &mut Value) -> Result<(), Status> {
    if *context.request.kind.kind == *"Pod" {
        ranges(context).iter().for_each(|range| set_defaults(object, range));
    }
    Ok(())
}

fn validate(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    for range in ranges(context) {
        let violation = match &*context.request.kind.kind {
            "Pod" => violation_of_pod(object, &range),
            _ => violation_of_claim(object, &range),
        };
        if let Some(why) = violation {
            return Err(context.forbidden(&why));
        }
    }
    Ok(())
}

/// The LimitRanges that a write must keep to.
fn ranges(context: &AdmissionContext<'_>) -> Vec<Arc<Vec<Limit>>> {
    let request = context.request;
    let Some(namespace) = request.namespace.filter(|_| concerns(request)) else { return Vec::new() };
    if request.snapshot.count(RESOURCE) == 0 {
        return Vec::new();
    }
    let found = context.readings.limit_ranges.list(request.snapshot, &format!("{namespace}/"));
    found.into_iter().map(|(_, range)| range).collect()
}

/// One item of a LimitRange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limit {
    /// `Container`, `Pod`, `PersistentVolumeClaim`, or what nobody enforces.
    kind: String,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
    default: Amounts,
    default_request: Amounts,
}

/// The items of a stored LimitRange.
pub fn read(range: &Value) -> Vec<Limit> {
    let limit = |item: &Value| Limit {
        kind: text(item, "type").to_owned(),
        min: amounts::read(&item["min"]),
        max: amounts::read(&item["max"]),
        ratio: amounts::read(&item["maxLimitRequestRatio"]),
        default: amounts::read(&item["default"]),
        default_request: amounts::read(&item["defaultRequest"]),
    };
    items(&range["spec"]["limits"]).map(limit).collect()
}

/// Whether limits concern a write at all. Containers do not change when a pod is updated, but for its resize.
fn concerns(request: &WriteRequest<'_>) -> bool {
    let terminating = request.old.is_some_and(|old| old["metadata"]["deletionTimestamp"].is_string());
    let is_written = matches!(request.operation, Verb::Create | Verb::Update);
    let limited = match (&*request.kind.group, &*request.kind.plural, request.subresource) {
        ("", "pods", None) => request.operation == Verb::Create,
        ("", "pods", Some(subresource)) => subresource == "resize",
        ("", "persistentvolumeclaims", None) => true,
        _ => false,
    };
    limited && is_written && !terminating
}

/// Gives the containers of a pod what a LimitRange says that they get, and notes it in an annotation.
fn set_defaults(pod: &mut Value, range: &[Limit]) {
    let (mut limits, mut requests) = (Amounts::new(), Amounts::new());
    for limit in range.iter().filter(|limit| limit.kind == "Container") {
        limits.extend(limit.default.clone());
        requests.extend(limit.default_request.clone());
    }
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = text(container, "name").to_owned();
            for (field, word, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

/// Fills in the amounts that a container does not say. Answers with their names.
fn fill<'a>(container: &mut Value, list: &str, defaults: &'a Amounts) -> Vec<&'a str> {
    let said = &container["resources"][list];
    let missing = |name: &String| said.get(name.as_str()).is_none_or(Value::is_null);
    let missing: Vec<(&String, &Quantity)> = defaults.iter().filter(|(name, _)| missing(name)).collect();
    for (name, amount) in &missing {
        container["resources"][list][name.as_str()] = json!(amount.to_string());
    }
    missing.into_iter().map(|(name, _)| name.as_str()).collect()
}

/// Why a pod does not keep to a LimitRange, in one text.
fn violation_of_pod(pod: &Value, range: &[Limit]) -> Option<String> {
    let mut errors = Vec::new();
    for limit in range {
        match limit.kind.as_str() {
            "Container" => {
                for container in ["containers", "initContainers"].iter().flat_map(|list| items(&pod["spec"][*list])) {
                    let of = |list: &str| amounts::read(&container["resources"][list]);
                    errors.extend(limit.violations(&of("requests"), &of("limits")));
                }
            }
            "Pod" => {
                let requests = pod_resources::requests(pod, Reckoning::Limits);
                errors.extend(limit.violations(&requests, &pod_resources::limits(pod, Reckoning::Limits)));
            }
            _ => {}
        }
    }
    joined(errors)
}

/// Why a claim does not keep to a LimitRange, in one text.
fn violation_of_claim(claim: &Value, range: &[Limit]) -> Option<String> {
    let requests = amounts::read(&claim["spec"]["resources"]["requests"]);
    let mut errors = Vec::new();
    for limit in range.iter().filter(|limit| limit.kind == "PersistentVolumeClaim") {
        let too_small = limit.min.iter().filter_map(|(name, min)| limit.below(name, *min, &requests, &Amounts::new()));
        let too_large = limit.max.iter().filter_map(|(name, max)| limit.request_above(name, *max, &requests));
        errors.extend(too_small.chain(too_large));
    }
    joined(errors)
}

/// As Go prints several errors: each once, in brackets if there is more than one.
fn joined(errors: Vec<String>) -> Option<String> {
    let mut seen = BTreeSet::new();
    let errors: Vec<&str> = errors.iter().map(String::as_str).filter(|error| seen.insert(*error)).collect();
    match errors[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        _ => Some(format!("[{}]", errors.join(", "))),
    }
}

impl Limit {
    fn violations(&self, requests: &Amounts, limits: &Amounts) -> impl Iterator<Item = String> {
        let below = self.min.iter().filter_map(|(name, min)| self.below(name, *min, requests, limits));
        let above = self.max.iter().filter_map(|(name, max)| self.above(name, *max, requests, limits));
        let ratio = self.ratio.iter().filter_map(|(name, most)| self.ratio_above(name, *most, requests, limits));
        below.chain(above).chain(ratio).collect::<Vec<_>>().into_iter()
    }

    fn below(&self, name: &str, min: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
        let rule = format!("minimum {name} usage per {} is {min}", self.kind);
        match (requests.get(name), limits.get(name)) {
            (None, _) => Some(format!("{rule}.  No request is specified")),
            (Some(request), _) if *request < min => Some(format!("{rule}, but request is {request}")),
            (_, Some(limit)) if *limit < min => Some(format!("{rule}, but limit is {limit}")),
            _ => None,
        }
    }

    fn above(&self, name: &str, max: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
        let rule = format!("maximum {name} usage per {} is {max}", self.kind);
        match (requests.get(name), limits.get(name)) {
            (_, None) => Some(format!("{rule}.  No limit is specified")),
            (_, Some(limit)) if *limit > max => Some(format!("{rule}, but limit is {limit}")),
            (Some(request), _) if *request > max => Some(format!("{rule}, but request is {request}")),
            _ => None,
        }
    }

    fn request_above(&self, name: &str, max: Quantity, requests: &Amounts) -> Option<String> {
        let rule = format!("maximum {name} usage per {} is {max}", self.kind);
        match requests.get(name) {
            None => Some(format!("{rule}.  No request is specified")),
            Some(request) if *request > max => Some(format!("{rule}, but request is {request}")),
            Some(_) => None,
        }
    }

    fn ratio_above(&self, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
        let rule = format!("{name} max limit to request ratio per {} is {most}", self.kind);
        let some = |list: &Amounts| list.get(name).copied().filter(|amount| *amount != Quantity::ZERO);
        let Some(request) = some(requests) else {
            return Some(format!("{rule}, but no request is specified or request is 0"));
        };
        let Some(limit) = some(limits) else { return Some(format!("{rule}, but no limit is specified or limit is 0")) };
        let ratio = limit.millis() as f64 / request.millis() as f64;
        (ratio * 1000.0 > most.millis() as f64).then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limit: Value) -> Vec<Limit> {
        read(&json!({"spec": {"limits": [limit]}}))
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn containers_and_init_containers_get_what_they_do_not_say() {
        let limits = range(json!({"type": "Container", "default": {"cpu": "75m", "memory": "10Mi"},
            "defaultRequest": {"cpu": "50m", "memory": "5Mi"}}));
        let mut pod = pod(json!({"limits": {"cpu": "80m"}}));
        pod["spec"]["initContainers"] = json!([{"name": "i", "resources": {}}]);
        set_defaults(&mut pod, &limits);
        let resources = &pod["spec"]["containers"][0]["resources"];
        assert_eq!(resources["limits"], json!({"cpu": "80m", "memory": "10Mi"}));
        assert_eq!(resources["requests"], json!({"cpu": "50m", "memory": "5Mi"}));
        assert_eq!(pod["spec"]["initContainers"][0]["resources"]["limits"]["cpu"], "75m");
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container c; memory limit for container c; \
            cpu, memory request for init container i; cpu, memory limit for init container i"
        );
        let whole = pod.clone();
        set_defaults(&mut pod, &limits);
        assert_eq!(pod, whole, "nothing is left to be set");
        let mut bare = json!({"spec": {"containers": [{"name": "c"}]}});
        set_defaults(&mut bare, &range(json!({"type": "Container", "default": {"cpu": "1"}})));
        assert_eq!(bare["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
    }

    #[test]
    fn containers_stay_between_min_and_max_and_keep_the_ratio() {
        let min = range(json!({"type": "Container", "min": {"cpu": "50m"}}));
        let max = range(json!({"type": "Container", "max": {"cpu": "100m", "memory": "1Gi"}}));
        let ratio = range(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1.5"}}));
        let of = |request: Value, limit: Value| pod(json!({"requests": request, "limits": limit}));
        let cases = [
            (&min, of(json!({"cpu": "50m"}), json!({})), None),
            (&min, of(json!({}), json!({})), Some("minimum cpu usage per Container is 50m.  No request is specified")),
            (
                &min,
                of(json!({"cpu": "40m"}), json!({})),
                Some("minimum cpu usage per Container is 50m, but request is 40m"),
            ),
            (
                &min,
                of(json!({"cpu": "50m"}), json!({"cpu": "0.01"})),
                Some("minimum cpu usage per Container is 50m, but limit is 10m"),
            ),
            (&max, of(json!({}), json!({"cpu": "100m", "memory": "1Gi"})), None),
            (
                &max,
                of(json!({"memory": "3Gi"}), json!({"memory": "2Gi"})),
                Some(
                    "[maximum cpu usage per Container is 100m.  No limit is specified, maximum memory usage per \
                    Container is 1Gi, but limit is 2Gi]",
                ),
            ),
            (&ratio, of(json!({"cpu": "1"}), json!({"cpu": "1500m"})), None),
            (
                &ratio,
                of(json!({"cpu": "1"}), json!({"cpu": "2"})),
                Some("cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000"),
            ),
            (
                &ratio,
                of(json!({"cpu": "0"}), json!({"cpu": "2"})),
                Some(
                    "cpu max limit to request ratio per Container is 1500m, but no request is specified or request \
                    is 0",
                ),
            ),
            (
                &ratio,
                of(json!({"cpu": "1"}), json!({})),
                Some("cpu max limit to request ratio per Container is 1500m, but no limit is specified or limit is 0"),
            ),
        ];
        for (range, pod, expected) in cases {
            assert_eq!(violation_of_pod(&pod, range).as_deref(), expected, "{pod}");
        }
    }

    #[test]
    fn a_pod_is_measured_as_a_whole() {
        let range = range(json!({"type": "Pod", "max": {"cpu": "150m"}}));
        let mut pod = pod(json!({"limits": {"cpu": "100m"}, "requests": {"cpu": "100m"}}));
        assert_eq!(violation_of_pod(&pod, &range), None);
        pod["spec"]["initContainers"] = json!([{"name": "i", "resources": {"limits": {"cpu": "200m"}}}]);
        let expected = "maximum cpu usage per Pod is 150m, but limit is 200m";
        assert_eq!(violation_of_pod(&pod, &range).as_deref(), Some(expected));
        pod["spec"]["resources"] = json!({"limits": {"cpu": "150m"}});
        assert_eq!(violation_of_pod(&pod, &range), None, "what the pod says counts");
    }

    #[test]
    fn a_claim_asks_for_what_is_allowed() {
        let range =
            range(json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert_eq!(violation_of_claim(&claim("1Gi"), &range), None);
        assert_eq!(
            violation_of_claim(&claim("500Mi"), &range).as_deref(),
            Some("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi")
        );
        assert_eq!(
            violation_of_claim(&claim("3Gi"), &range).as_deref(),
            Some("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")
        );
        assert_eq!(violation_of_pod(&claim("3Gi"), &range), None);
    }
}
