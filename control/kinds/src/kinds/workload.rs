//! What workloads share: the pod template, the selector that must find its pods, the counts in a status, and the
//! columns of all these.

use serde_json::{Value, json};

use super::{
    Cell, Column, FieldError, label_selector, names,
    pod::{
        self,
        defaults::{fill, pod_spec},
        validation,
    },
    reading::{entries, items, number, same},
};

/// The last columns of a kind with a template; [`cells`] answers them.
pub const CONTAINERS: Column = Column::wide("Containers", "Names of each container in the template.");
/// Column of the images of a template.
pub const IMAGES: Column = Column::wide("Images", "Images referenced by each container in the template.");
/// Column of the selector of a workload.
pub const SELECTOR: Column = Column::wide("Selector", "Label selector for pods.");

/// The cells of [`CONTAINERS`], [`IMAGES`] and [`SELECTOR`], where the selector is a `LabelSelector`.
pub fn cells(spec: &Value) -> [Cell; 3] {
    let [names, images] = containers(&spec["template"]);
    [names, images, Cell::text(label_selector::text(&spec["selector"]))]
}

/// The cells of [`CONTAINERS`] and [`IMAGES`].
pub fn containers(template: &Value) -> [Cell; 2] {
    ["name", "image"].map(|field| {
        let texts = items(&template["spec"]["containers"]).map(|c| c[field].as_str().unwrap_or_default());
        Cell::text(texts.collect::<Vec<_>>().join(","))
    })
}

/// Labels as a cell shows them: `app=web,tier=front`.
pub fn labels_text(labels: &Value) -> String {
    let mut terms: Vec<String> =
        entries(labels).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    terms.sort();
    if terms.is_empty() { "<none>".to_owned() } else { terms.join(",") }
}

/// The spec of an object, made if it is not there.
pub fn spec_of(object: &mut Value) -> Option<&mut Value> {
    fill(object, "spec", || json!({}));
    object.get_mut("spec").filter(|spec| spec.is_object())
}

/// Drops the fields of features that are off from the template of pods at this JSON pointer, unless the template stays
/// as it is stored: an earlier version may have stored such fields, and nothing but a change may begin a rollout.
///
/// Kubernetes lets a changed template keep them, too. Here what is made from it, whose templates and pods are new,
/// would never be like it.
pub fn drop_unknown(new: &mut Value, old: Option<&Value>, template: &str) {
    let Some(now) = new.pointer_mut(template) else { return };
    if old.and_then(|old| old.pointer(template)).is_none_or(|stored| !same(stored, now)) {
        pod::drop_unknown(now);
    }
}

/// Fills in what is missing in a pod template, the spec itself too.
pub fn default_template(template: &mut Value) {
    fill(template, "spec", || json!({}));
    if let Some(spec) = template.get_mut("spec") {
        pod_spec(spec);
    }
}

/// Fills in one replica, and what is missing in the template.
pub fn default(spec: &mut Value) {
    fill(spec, "replicas", || json!(1));
    fill(spec, "template", || json!({}));
    if let Some(template) = spec.get_mut("template") {
        default_template(template);
    }
}

/// Whether a write changes the spec, or makes it. A spec that stays was found valid when it came.
pub fn changes_spec(new: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| new["spec"] != old["spec"])
}

/// The object as it was, if a write changes its status.
pub fn changes_status<'a>(new: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    old.filter(|old| new["status"] != old["status"])
}

/// Reasons against the selector of a Deployment or a ReplicaSet, and against the template that it is to find.
pub fn replicated(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = selected(spec, "deployment", "invalid label selector");
    if is_well_formed(&spec["selector"]) {
        errors.extend(template("spec.template", &spec["template"]));
        errors.extend(always_restarts("spec.template", &spec["template"], "ReplicaSet"));
    }
    errors.extend(immutable_selector(spec, old));
    errors
}

/// Whether a selector means anything. Where it does not, Kubernetes does not look at the template that it is to find.
pub fn is_well_formed(selector: &Value) -> bool {
    label_selector::validate("", selector).is_empty()
}

/// Reasons against a selector that must be there, must not be empty, and must find the pods of the template.
///
/// `workload` names it in the reason against an empty selector, `malformed` is that against one that means nothing.
pub fn selected(spec: &Value, workload: &str, malformed: &str) -> Vec<FieldError> {
    const PATH: &str = "spec.selector";
    let selector = &spec["selector"];
    let wrong = label_selector::validate(PATH, selector);
    let well_formed = wrong.is_empty();
    let mut errors = wrong;
    if selector.is_null() {
        errors.push(FieldError::required(PATH, ""));
    } else if label_selector::is_empty(selector) {
        let why = format!("empty selector is invalid for {workload}");
        errors.push(FieldError::invalid(PATH, selector, why));
    }
    if !well_formed {
        errors.push(FieldError::invalid(PATH, selector, malformed));
    } else if selector.is_null() || !label_selector::is_empty(selector) {
        errors.extend(finds_template(selector, &spec["template"]));
    }
    errors
}

/// Why a selector does not find the pods of its own template.
pub fn finds_template(selector: &Value, template: &Value) -> Option<FieldError> {
    let labels = &template["metadata"]["labels"];
    let finds = selector.is_object() && label_selector::selects(selector, labels);
    let why = "`selector` does not match template `labels`";
    (!finds).then(|| FieldError::invalid("spec.template.metadata.labels", labels, why))
}

/// Why the selector of a stored workload may not become this one.
pub fn immutable_selector(spec: &Value, old: Option<&Value>) -> Option<FieldError> {
    let changed = old.is_some_and(|old| !same(&old["spec"]["selector"], &spec["selector"]));
    changed.then(|| FieldError::immutable("spec.selector", &spec["selector"]))
}

/// Reasons against a pod template at `path`.
pub fn template(path: &str, template: &Value) -> Vec<FieldError> {
    let (metadata, spec) = (&template["metadata"], &template["spec"]);
    let mut errors = names::labels(&format!("{path}.labels"), &metadata["labels"]);
    errors.extend(names::annotations(&format!("{path}.annotations"), &metadata["annotations"]));
    errors.extend(validation::of_template(path, metadata, spec));
    if items(&spec["ephemeralContainers"]).len() > 0 {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{path}.spec.ephemeralContainers"), why));
    }
    errors
}

/// Reasons against the template of pods that `workload` (`ReplicaSet`) keeps running.
pub fn always_restarts(path: &str, template: &Value, workload: &str) -> Vec<FieldError> {
    let spec = &template["spec"];
    let mut errors = Vec::new();
    if spec["restartPolicy"] != "Always" {
        let path = format!("{path}.spec.restartPolicy");
        errors.push(FieldError::not_supported(path, &spec["restartPolicy"], &["Always"]));
    }
    if !spec["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {workload} is not Supported");
        errors.push(FieldError::forbidden(format!("{path}.spec.activeDeadlineSeconds"), &why));
    }
    errors
}

/// Reasons against the numbers in a status: each is at least 0, and each of `parts` at most the `replicas`.
pub fn counts(status: &Value, counted: &[&str], parts: &[&str]) -> Vec<FieldError> {
    let path = |field: &str| format!("status.{field}");
    let mut errors: Vec<FieldError> =
        counted.iter().filter_map(|field| FieldError::negative(path(field), &status[*field])).collect();
    for part in parts.iter().filter(|part| number(status, part) > number(status, "replicas")) {
        let why = "cannot be greater than status.replicas";
        errors.push(FieldError::invalid(path(part), &status[*part], why));
    }
    errors
}

/// Why there are more available replicas than ready ones, which are named `ready`.
pub fn more_available_than_ready(status: &Value, ready: &str) -> Option<FieldError> {
    let more = number(status, "availableReplicas") > number(status, "readyReplicas");
    let why = format!("cannot be greater than {ready}");
    more.then(|| FieldError::invalid("status.availableReplicas", &status["availableReplicas"], why))
}

/// Why the collisions of names that were counted may not become fewer.
pub fn fewer_collisions(new: &Value, old: &Value) -> Option<FieldError> {
    let (new, old) = (&new["status"]["collisionCount"], &old["status"]["collisionCount"]);
    let fewer = match (new.as_i64(), old.as_i64()) {
        (None, before) => before.is_some(),
        (Some(now), before) => before.is_some_and(|before| now < before),
    };
    let value = if new.is_null() { &json!(0) } else { new };
    fewer.then(|| FieldError::invalid("status.collisionCount", value, "cannot be decremented"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(selected: Value) -> Value {
        let mut object = json!({"spec": {"selector": selected, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "x"}]}}}});
        default(&mut object["spec"]);
        object
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        replicated(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn pods_of_a_template_always_restart() {
        let mut object = workload(json!({"matchLabels": {"app": "web"}}));
        assert_eq!(words(&object, None), Vec::<String>::new());
        object["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
        object["spec"]["template"]["spec"]["activeDeadlineSeconds"] = 5.into();
        assert_eq!(
            words(&object, None),
            [
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"
            ]
        );
    }

    #[test]
    fn a_selector_must_match_its_template_and_stay() {
        let old = workload(json!({"matchLabels": {"app": "web"}}));
        let labels = "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`";
        assert_eq!(
            words(&workload(json!({"matchLabels": {"app": "other"}})), Some(&old)),
            [labels, "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"]
        );
        assert_eq!(words(&workload(Value::Null), None), ["spec.selector: Required value", labels]);
        assert_eq!(
            words(&workload(json!({})), None),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
        );
        let malformed = json!({"matchExpressions": [{"key": "a", "operator": "Is"}]});
        assert!(words(&workload(malformed.clone()), None)[1].ends_with("invalid label selector"));
        let mut with_bad_template = workload(malformed);
        with_bad_template["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
        assert_eq!(words(&with_bad_template, None).len(), 2, "the template is not looked at");
    }

    #[test]
    fn counts_of_a_status_make_sense() {
        let status = json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 3, "observedGeneration": -1});
        let errors = counts(&status, &["replicas", "observedGeneration"], &["readyReplicas"]);
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["status.observedGeneration", "status.readyReplicas"]);
        assert!(more_available_than_ready(&status, "readyReplicas").is_some());
        let with = |count: Value| json!({"status": {"collisionCount": count}});
        assert!(fewer_collisions(&with(json!(1)), &with(json!(2))).is_some());
        assert!(fewer_collisions(&with(Value::Null), &with(json!(0))).is_some());
        assert!(fewer_collisions(&with(json!(2)), &with(Value::Null)).is_none());
    }
}
