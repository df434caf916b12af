//! What makes a HorizontalPodAutoscaler invalid.

use serde_json::Value;

use crate::kinds::{
    FieldError,
    api_version::group_and_version,
    names,
    quantity::Quantity,
    reading::{is_empty, items, number, text},
    resource_name, workload,
};

const MAX_PERIOD: i64 = 1800;
const MAX_STABILIZATION: i64 = 3600;
const METRIC_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// Fields of the sources of metrics, with the type that each belongs to. The first that is there is looked into.
const SOURCES: [(&str, &str); 5] = [
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];

/// Reasons why `new` may not be stored in place of `old`.
pub fn autoscaler(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(validate_spec(&new["spec"], old.map(|old| &old["spec"])));
    }
    if workload::changes_status(new, old).is_some() {
        for field in ["currentReplicas", "desiredReplicas"] {
            errors.extend(FieldError::negative(format!("status.{field}"), &new["status"][field]));
        }
    }
    errors
}

/// Which API versions a reference may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Versions {
    Any,
    /// The core group too.
    OfAnyGroup,
    /// Not the core group.
    OfNamedGroup,
}

fn validate_spec(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (least, most) = (spec["minReplicas"].as_i64(), number(spec, "maxReplicas"));
    let lowest = if old.is_some_and(|old| old["minReplicas"] == 0) { 0 } else { 1 };
    if least.is_some_and(|least| least < lowest) {
        let why = format!("must be greater than or equal to {lowest}");
        errors.push(FieldError::invalid("spec.minReplicas", &spec["minReplicas"], why));
    }
    if most < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", &most.into(), "must be greater than 0"));
    }
    if least.is_some_and(|least| most < least) {
        let why = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", &most.into(), why));
    }
    let target = &spec["scaleTargetRef"];
    let is_same = |old: &Value| ["apiVersion", "kind"].iter().all(|field| text(old, field) == text(target, field));
    let versions = match old {
        Some(old) if is_same(&old["scaleTargetRef"]) => Versions::Any,
        _ if target["kind"] == "ReplicationController" => Versions::OfAnyGroup,
        _ => Versions::OfNamedGroup,
    };
    errors.extend(reference("spec.scaleTargetRef", target, versions));
    errors.extend(metrics(spec, old));
    for direction in ["scaleUp", "scaleDown"] {
        errors.extend(rules(&format!("spec.behavior.{direction}"), &spec["behavior"][direction]));
    }
    errors
}

fn reference(path: &str, reference: &Value, versions: Versions) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["kind", "name"] {
        errors.extend(segment(&format!("{path}.{field}"), &reference[field], ""));
    }
    errors.extend(
        api_version(reference, versions)
            .map(|why| FieldError::invalid(format!("{path}.apiVersion"), &text(reference, "apiVersion").into(), why)),
    );
    errors
}

fn api_version(reference: &Value, versions: Versions) -> Option<String> {
    let version = text(reference, "apiVersion");
    let (group, _) = group_and_version(version);
    match versions {
        Versions::Any => None,
        _ if version.matches('/').count() > 1 => Some(format!("unexpected GroupVersion string: {version}")),
        Versions::OfNamedGroup if group.is_empty() => Some("apiVersion must specify API group".to_owned()),
        _ => None,
    }
}

/// Reasons against a text that must be there and fit into a path.
fn segment(path: &str, value: &Value, missing: &str) -> Vec<FieldError> {
    match value.as_str().unwrap_or_default() {
        "" => vec![FieldError::required(path, missing)],
        _ => FieldError::each(path, value, names::path_segment),
    }
}

fn metrics(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let described = |metric: &Value| metric["object"]["describedObject"].clone();
    let was_wrong = |old: &Value| {
        let mut of_objects = items(&old["metrics"]).filter(|metric| metric["type"] == "Object");
        of_objects.any(|metric| api_version(&described(metric), Versions::OfAnyGroup).is_some())
    };
    let versions = if old.is_some_and(was_wrong) { Versions::Any } else { Versions::OfAnyGroup };
    let mut errors: Vec<FieldError> = Vec::new();
    for (i, metric) in items(&spec["metrics"]).enumerate() {
        errors.extend(validate_metric(&format!("spec.metrics[{i}]"), metric, versions));
    }
    let outside = items(&spec["metrics"]).any(|metric| matches!(text(metric, "type"), "Object" | "External"));
    if spec["minReplicas"] == 0 && !outside {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden("spec.metrics", why));
    }
    errors
}

fn validate_metric(path: &str, metric: &Value, versions: Versions) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(metric, "type");
    let unsupported = || FieldError::not_supported(format!("{path}.type"), &kind.into(), &METRIC_TYPES);
    if kind.is_empty() {
        errors.push(FieldError::required(format!("{path}.type"), "must specify a metric source type"));
    }
    if !METRIC_TYPES.contains(&kind) {
        errors.push(unsupported());
    }
    let present: Vec<&str> =
        SOURCES.iter().map(|(field, _)| *field).filter(|field| !metric[*field].is_null()).collect();
    if let Some(field) = present.first() {
        errors.extend(source(&format!("{path}.{field}"), field, &metric[*field], versions));
    }
    let expected = SOURCES.iter().find(|(_, of)| *of == kind).map(|(field, _)| *field);
    match expected {
        Some(field) if metric[field].is_null() => {
            let why = "must populate information for the given metric source";
            errors.push(FieldError::required(format!("{path}.{field}"), why));
        }
        Some(_) => {}
        None => errors.push(unsupported()),
    }
    if present.len() != 1 {
        for field in present.into_iter().filter(|field| Some(*field) != expected) {
            let why = "must populate the given metric source only";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), why));
        }
    }
    errors
}

fn source(path: &str, field: &str, source: &Value, versions: Versions) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let target = &source["target"];
    let has = |field: &str| !target[field].is_null();
    match field {
        "object" => errors.extend(reference(&format!("{path}.describedObject"), &source["describedObject"], versions)),
        "resource" | "containerResource" if text(source, "name").is_empty() => {
            errors.push(FieldError::required(format!("{path}.name"), "must specify a resource name"));
        }
        "containerResource" => {
            errors.extend(resource_name::of_container(&format!("{path}.name"), text(source, "name")));
        }
        _ => {}
    }
    if field == "containerResource" {
        let container = format!("{path}.container");
        match text(source, "container") {
            "" => errors.push(FieldError::required(container, "must specify a container")),
            _ => errors.extend(FieldError::each(container, &source["container"], names::label)),
        }
    }
    if !matches!(field, "resource" | "containerResource") {
        errors.extend(segment(&format!("{path}.metric.name"), &source["metric"]["name"], "must specify a metric name"));
    }
    errors.extend(validate_target(&format!("{path}.target"), target));
    let (missing, why) = match field {
        "object" => ("averageValue", "must set either a target value or averageValue"),
        "external" => ("averageValue", "must set either a target value for metric or a per-pod target"),
        "pods" => ("averageValue", "must specify a positive target averageValue"),
        _ => ("averageUtilization", "must set either a target raw value or a target utilization"),
    };
    let is_set = match field {
        "object" | "external" => has("value") || has("averageValue"),
        "pods" => has("averageValue"),
        _ => has("averageUtilization") || has("averageValue"),
    };
    if !is_set {
        errors.push(FieldError::required(format!("{path}.target.{missing}"), why));
    }
    let both = match field {
        "external" if has("value") && has("averageValue") => {
            Some(("value", "may not set both a target value for metric and a per-pod target"))
        }
        "resource" | "containerResource" if has("averageUtilization") && has("averageValue") => {
            Some(("averageValue", "may not set both a target raw value and a target utilization"))
        }
        _ => None,
    };
    errors.extend(both.map(|(field, why)| FieldError::forbidden(format!("{path}.target.{field}"), why)));
    errors
}

fn validate_target(path: &str, target: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(format!("{path}.type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(format!("{path}.type"), &kind.into(), why));
    }
    for field in ["value", "averageValue"] {
        if Quantity::of(&target[field]).is_some_and(|value| !value.is_positive()) {
            errors.push(FieldError::invalid(format!("{path}.{field}"), &target[field], "must be positive"));
        }
    }
    let percent = &target["averageUtilization"];
    if percent.as_i64().is_some_and(|percent| percent < 1) {
        errors.push(FieldError::invalid(format!("{path}.averageUtilization"), percent, "must be greater than 0"));
    }
    errors
}

fn rules(path: &str, rules: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if rules.is_null() {
        return errors;
    }
    let window = number(rules, "stabilizationWindowSeconds");
    let mut bound = |wrong: bool, why: String| {
        if wrong {
            let path = format!("{path}.stabilizationWindowSeconds");
            errors.push(FieldError::invalid(path, &window.into(), why));
        }
    };
    bound(window < 0, "must be greater than or equal to zero".to_owned());
    bound(window > MAX_STABILIZATION, format!("must be less than or equal to {MAX_STABILIZATION}"));
    let policies = ["Disabled", "Max", "Min"];
    errors.extend(FieldError::unsupported(format!("{path}.selectPolicy"), &rules["selectPolicy"], &policies));
    if is_empty(&rules["policies"]) {
        errors.push(FieldError::required(format!("{path}.policies"), "must specify at least one Policy"));
    }
    for (i, policy) in items(&rules["policies"]).enumerate() {
        errors.extend(validate_policy(&format!("{path}.policies[{i}]"), policy));
    }
    if Quantity::of(&rules["tolerance"]).is_some_and(Quantity::is_negative) {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(format!("{path}.tolerance"), &rules["tolerance"], why));
    }
    errors
}

fn validate_policy(path: &str, policy: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !matches!(text(policy, "type"), "Pods" | "Percent") {
        errors.push(FieldError::not_supported(format!("{path}.type"), &policy["type"], &["Percent", "Pods"]));
    }
    for field in ["value", "periodSeconds"] {
        if number(policy, field) <= 0 {
            let why = "must be greater than zero";
            errors.push(FieldError::invalid(format!("{path}.{field}"), &number(policy, field).into(), why));
        }
    }
    if number(policy, "periodSeconds") > MAX_PERIOD {
        let why = format!("must be less than or equal to {MAX_PERIOD}");
        errors.push(FieldError::invalid(format!("{path}.periodSeconds"), &policy["periodSeconds"], why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut spec = json!({"minReplicas": 1, "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]});
        change(&mut spec);
        let errors = autoscaler(&json!({"spec": spec}), None);
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn replicas_have_bounds() {
        assert_eq!(spec(|_| {}), Vec::<String>::new());
        assert_eq!(
            spec(|spec| spec["minReplicas"] = json!(5)),
            ["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"]
        );
        assert_eq!(
            spec(|spec| spec["minReplicas"] = json!(0)),
            [
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas"
            ]
        );
        assert_eq!(
            spec(|spec| spec["maxReplicas"] = json!(0))[0],
            "spec.maxReplicas: Invalid value: 0: must be greater than 0"
        );
    }

    #[test]
    fn the_target_says_its_group() {
        let wrong = ["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"];
        assert_eq!(spec(|spec| spec["scaleTargetRef"]["apiVersion"] = json!("v1")), wrong);
        let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "c"});
        assert_eq!(spec(|spec| spec["scaleTargetRef"] = controller), Vec::<String>::new());
        let unnamed = spec(|spec| spec["scaleTargetRef"] = json!({"apiVersion": "a/b", "kind": "x/y"}));
        assert_eq!(
            unnamed,
            [
                "spec.scaleTargetRef.kind: Invalid value: \"x/y\": may not contain '/'",
                "spec.scaleTargetRef.name: Required value"
            ]
        );
    }

    #[test]
    fn a_metric_has_one_source_and_one_target() {
        let two = json!({"type": "Resource", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue",
            "averageValue": "1"}}, "resource": {"name": "cpu", "target": {"type": "Utilization"}}});
        assert_eq!(
            spec(|spec| spec["metrics"] = json!([two])),
            ["spec.metrics[0].pods: Forbidden: must populate the given metric source only"]
        );
        let none = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}});
        assert_eq!(
            spec(|spec| spec["metrics"] = json!([none])),
            [
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"
            ]
        );
    }

    #[test]
    fn policies_act_within_half_an_hour() {
        let behavior = json!({"scaleUp": {"policies": [{"type": "All", "value": 0, "periodSeconds": 1801}]}});
        assert_eq!(
            spec(|spec| spec["behavior"] = behavior),
            [
                "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"All\": supported values: \"Percent\", \"Pods\"",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"
            ]
        );
    }
}
