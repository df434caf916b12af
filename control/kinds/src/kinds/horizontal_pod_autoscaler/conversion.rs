//! `autoscaling/v1` to `autoscaling/v2` and back. What v1 has no field for is in annotations, as Kubernetes writes
//! them.

use serde_json::{Map, Value, json};

use crate::kinds::{
    Kind,
    reading::{is_empty, items},
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const OLDER: [&str; 2] =
    ["autoscaling.alpha.kubernetes.io/scale-down-tolerance", "autoscaling.alpha.kubernetes.io/scale-up-tolerance"];

/// Fields of v1 that hold what v2 has in a `metric` and a `target`, or a `current`: for each source, pairs of the path
/// in v2 and the name in v1.
type Names = [(&'static str, &'static [(&'static str, &'static str)])];

const SOURCES: &Names = &[
    (
        "object",
        &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("/name", "name"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("/name", "name"),
            ("/container", "container"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    ),
    (
        "external",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    ),
];

const CURRENT: &Names = &[
    (
        "object",
        &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("/name", "name"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("/name", "name"),
            ("/container", "container"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
    (
        "external",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
];

/// A share of the CPU that is asked for, as a metric of v2.
pub fn cpu_metric(percent: Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// Takes the annotations of v1 off an object. They mean nothing in v2.
pub fn take_annotations(object: &mut Value) -> Map<String, Value> {
    let mut taken = Map::new();
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return taken };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return taken };
    for key in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR].into_iter().chain(OLDER) {
        if let Some(value) = annotations.shift_remove(key) {
            taken.insert(key.to_owned(), value);
        }
    }
    if !taken.is_empty() && annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
    taken
}

/// An object of v1 becomes one of v2. Annotations that cannot be read are ignored, as in Kubernetes.
pub fn to_v2(object: &mut Value) {
    object["apiVersion"] = "autoscaling/v2".into();
    let annotations = take_annotations(object);
    let annotated = |key: &str| -> Option<Value> { serde_json::from_str(annotations.get(key)?.as_str()?).ok() };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let cpu = spec.shift_remove("targetCPUUtilizationPercentage").filter(|percent| !percent.is_null());
        let others = annotated(METRICS).unwrap_or_default();
        let mut metrics: Vec<Value> = items(&others).map(|metric| to_metric(metric, SOURCES)).collect();
        metrics.extend(cpu.map(cpu_metric));
        if !metrics.is_empty() {
            spec.insert("metrics".into(), metrics.into());
        }
        let behavior = annotated(BEHAVIOR).filter(|behavior| !is_empty(behavior));
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), renamed(&behavior, lower_first));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        // v2 leaves it out where v1 has a zero.
        if status.get("currentReplicas").is_some_and(|count| *count == 0) {
            status.shift_remove("currentReplicas");
        }
        let cpu = status.shift_remove("currentCPUUtilizationPercentage").filter(|percent| !percent.is_null());
        let current = match (annotated(CURRENT_METRICS), cpu) {
            (Some(metrics), _) => items(&metrics).map(|metric| to_metric(metric, CURRENT)).collect(),
            (None, Some(percent)) => {
                let resource = json!({"name": "cpu", "current": {"averageUtilization": percent}});
                json!([{"type": "Resource", "resource": resource}])
            }
            (None, None) => Value::Null,
        };
        if !current.is_null() {
            status.insert("currentMetrics".into(), current);
        }
        if let Some(conditions) = annotated(CONDITIONS).filter(Value::is_array) {
            status.insert("conditions".into(), conditions);
        }
    }
}

/// The way back.
pub fn from_v2(object: &mut Value, served: &Kind) {
    object["apiVersion"] = served.api_version().into();
    take_annotations(object);
    let mut annotations = Map::new();
    let mut annotate = |key: &str, value: Value| annotations.insert(key.to_owned(), value.to_string().into());
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = spec.shift_remove("metrics").unwrap_or_default();
        let percent = |metric: &Value| Some(metric["resource"]["target"]["averageUtilization"].clone());
        let percent = |metric: &Value| percent(metric).filter(|percent| is_cpu(metric) && !percent.is_null());
        if let Some(percent) = items(&metrics).find_map(percent) {
            spec.insert("targetCPUUtilizationPercentage".into(), percent);
        }
        let others = items(&metrics).filter(|metric| percent(metric).is_none());
        let others: Vec<Value> = others.map(|metric| from_metric(metric, SOURCES)).collect();
        if !others.is_empty() {
            annotate(METRICS, others.into());
        }
        if let Some(behavior) = spec.shift_remove("behavior").filter(|behavior| !behavior.is_null()) {
            annotate(BEHAVIOR, renamed(&behavior, upper_first));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let current = status.shift_remove("currentMetrics").unwrap_or_default();
        let percent = |metric: &Value| metric["resource"]["current"]["averageUtilization"].clone();
        let percent = items(&current).filter(|metric| is_cpu(metric)).map(percent).rfind(|percent| !percent.is_null());
        if let Some(percent) = percent {
            status.insert("currentCPUUtilizationPercentage".into(), percent);
        }
        if !is_empty(&current) {
            annotate(CURRENT_METRICS, items(&current).map(present_in_v1).collect());
        }
        if let Some(conditions) = status.shift_remove("conditions").filter(|conditions| !is_empty(conditions)) {
            annotate(CONDITIONS, conditions);
        }
        for field in ["currentReplicas", "desiredReplicas"] {
            status.entry(field).or_insert_with(|| 0.into());
        }
    }
    if !annotations.is_empty() {
        let all = &mut object["metadata"]["annotations"];
        if !all.is_object() {
            *all = json!({});
        }
        if let Some(all) = all.as_object_mut() {
            all.extend(annotations);
        }
    }
}

/// A present value in the shape of v1, where the amount that each source has is there although nobody measured it.
fn present_in_v1(metric: &Value) -> Value {
    let mut present = from_metric(metric, CURRENT);
    for (source, amount) in [
        ("object", "currentValue"),
        ("pods", "currentAverageValue"),
        ("resource", "currentAverageValue"),
        ("containerResource", "currentAverageValue"),
        ("external", "currentValue"),
    ] {
        if let Some(source) = present.get_mut(source).and_then(Value::as_object_mut) {
            source.entry(amount).or_insert_with(|| "0".into());
        }
    }
    present
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

/// A metric of v1, or its present value, in the shape of v2.
fn to_metric(metric: &Value, names: &Names) -> Value {
    let mut result = json!({"type": metric["type"]});
    for (source, fields) in names.iter().filter(|(source, _)| metric[*source].is_object()) {
        let old = &metric[*source];
        let mut new = json!({});
        for (path, name) in fields.iter().filter(|(_, name)| !old[*name].is_null()) {
            let mut at = &mut new;
            for part in path.split('/').skip(1) {
                at = &mut at[part];
            }
            *at = old[*name].clone();
        }
        if fields.iter().any(|(path, _)| path.starts_with("/target/")) {
            new["target"]["type"] = target_type(source, &new["target"]).into();
        }
        result[*source] = new;
    }
    result
}

/// v1 does not say it; it follows from what is set.
fn target_type(source: &str, target: &Value) -> &'static str {
    let has = |field: &str| !target[field].is_null();
    match source {
        "object" if !has("averageValue") => "Value",
        "external" if has("value") => "Value",
        "resource" | "containerResource" if has("averageUtilization") => "Utilization",
        _ => "AverageValue",
    }
}

fn from_metric(metric: &Value, names: &Names) -> Value {
    let mut result = json!({"type": metric["type"]});
    for (source, fields) in names.iter().filter(|(source, _)| metric[*source].is_object()) {
        let old = &metric[*source];
        let known = fields.iter().filter_map(|(path, name)| Some(((*name).to_owned(), old.pointer(path)?.clone())));
        result[*source] = known.filter(|(_, value)| !value.is_null()).collect();
    }
    result
}

/// The same with the names of all fields changed. The annotation for the behavior has names as in Go.
fn renamed(value: &Value, name: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => {
            let set = map.iter().filter(|(_, value)| !value.is_null());
            set.map(|(key, value)| (name(key), renamed(value, name))).collect()
        }
        Value::Array(list) => list.iter().map(|value| renamed(value, name)).collect(),
        other => other.clone(),
    }
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_lowercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn upper_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn v1() -> std::sync::Arc<Kind> {
        Kinds::built_in().by_path("autoscaling", "v1", "horizontalpodautoscalers").unwrap()
    }

    #[test]
    fn nothing_is_lost_on_the_way_through_v1_and_back() {
        let selector = json!({"matchLabels": {"a": "b"}});
        let queue = json!({"type": "External", "external": {"metric": {"name": "queue", "selector": selector},
            "target": {"value": "30", "type": "Value"}}});
        let object_metric = json!({"type": "Object", "object": {
            "describedObject": {"kind": "Ingress", "name": "i", "apiVersion": "networking.k8s.io/v1"},
            "metric": {"name": "hits"}, "target": {"averageValue": "2", "type": "AverageValue"}}});
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"averageValue": "1Gi", "type": "AverageValue"}}});
        let now = json!({"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 35, "averageValue": "350m"}}});
        let before = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a", "annotations": {"own": "x"}},
            "spec": {"maxReplicas": 3, "metrics": [queue, object_metric, memory, cpu_metric(json!(70))],
                "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 9}]}}},
            "status": {"currentReplicas": 1, "desiredReplicas": 2, "currentMetrics": [now],
                "conditions": [{"type": "AbleToScale", "status": "True"}]}});
        let mut object = before.clone();
        from_v2(&mut object, &v1());
        assert_eq!(object["apiVersion"], "autoscaling/v1");
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}));
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 35);
        let behavior = object["metadata"]["annotations"][BEHAVIOR].as_str().unwrap();
        assert_eq!(behavior, r#"{"ScaleUp":{"Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":9}]}}"#);
        to_v2(&mut object);
        assert_eq!(object, before);
    }

    #[test]
    fn an_amount_that_nobody_measured_is_zero_in_v1() {
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 80}}});
        let expected =
            r#"{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":80,"currentAverageValue":"0"}}"#;
        assert_eq!(present_in_v1(&metric).to_string(), expected);
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "hits"}, "current": {"averageValue": "5"}}});
        assert_eq!(present_in_v1(&pods)["pods"], json!({"metricName": "hits", "currentAverageValue": "5"}));
    }

    #[test]
    fn v1_alone_means_a_share_of_the_cpu() {
        let mut object = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {METRICS: "not json"}},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60}});
        to_v2(&mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "metrics": [cpu_metric(json!(60))]}));
        assert_eq!(object["metadata"], json!({"name": "a"}));
    }
}
