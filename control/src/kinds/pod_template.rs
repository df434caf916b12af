//! The pod template of Deployments and ReplicaSets, and the selector that must find its pods: defaults, reasons
//! against, columns.

use serde_json::{Value, json};

use super::{
    Cell, Column, FieldError, label_selector, names,
    pod::{
        defaults::{fill, pod_spec},
        validation,
    },
};

/// The last columns of a kind with a template; [`cells`] answers them.
pub const CONTAINERS: Column = Column::wide("Containers", "Names of each container in the template.");
/// Column of the images of a template.
pub const IMAGES: Column = Column::wide("Images", "Images referenced by each container in the template.");
/// Column of the selector of a workload.
pub const SELECTOR: Column = Column::wide("Selector", "Label selector for pods.");

/// The cells of [`CONTAINERS`], [`IMAGES`] and [`SELECTOR`].
pub fn cells(spec: &Value) -> [Cell; 3] {
    let containers = spec["template"]["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let joined = |field: &str| {
        Cell::text(containers.iter().map(|c| c[field].as_str().unwrap_or_default()).collect::<Vec<_>>().join(","))
    };
    [joined("name"), joined("image"), Cell::text(label_selector::text(&spec["selector"]))]
}

/// Fills in one replica, and what is missing in the template.
pub fn default(spec: &mut Value) {
    fill(spec, "replicas", || json!(1));
    if spec["template"].is_object() {
        pod_spec(&mut spec["template"]["spec"]);
    }
}

/// Reasons against an object with a template, its counts and its selector.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = Vec::new();
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.extend(FieldError::negative(format!("spec.{field}"), &spec[field]));
    }
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        let invalid = label_selector::validate("spec.selector", selector);
        if label_selector::is_empty(selector) {
            errors.push(FieldError::invalid("spec.selector", selector, "empty selector is invalid for deployment"));
        } else if invalid.is_empty() {
            let labels = &spec["template"]["metadata"]["labels"];
            if !label_selector::selects(selector, labels) {
                let why = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid("spec.template.metadata.labels", labels, why));
            }
        }
        errors.extend(invalid);
    }
    errors.extend(template("spec.template", &spec["template"]));
    if let Some(old) = old.map(|old| &old["spec"]["selector"])
        && old != selector
    {
        errors.push(FieldError::immutable("spec.selector", selector));
    }
    errors
}

fn template(path: &str, template: &Value) -> Vec<FieldError> {
    let mut errors = names::labels(&format!("{path}.labels"), &template["metadata"]["labels"]);
    errors.extend(validation::spec(&format!("{path}.spec"), &template["spec"]));
    let policy = &template["spec"]["restartPolicy"];
    if policy.as_str().is_some_and(|p| matches!(p, "OnFailure" | "Never")) {
        errors.push(FieldError::not_supported(format!("{path}.spec.restartPolicy"), policy, &["Always"]));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(format!("{path}.spec.activeDeadlineSeconds"), why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_template_always_restart() {
        let never = json!({"spec": {"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Never"}});
        assert_eq!(template("spec.template", &never).len(), 1);
    }

    #[test]
    fn a_selector_must_match_its_template_and_stay() {
        let pod = json!({"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Always"});
        let workload = |selected: &str| {
            json!({"spec": {"selector": {"matchLabels": {"app": selected}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod}}})
        };
        assert_eq!(validate(&workload("web"), None), []);
        let errors = validate(&workload("other"), Some(&workload("web")));
        let words: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(
            words,
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable",
            ]
        );
    }
}
