//! DaemonSet: a pod template, one pod of it on each node that it selects.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, int_or_percent, label_selector,
    pod::{
        defaults::{fill, fill_text},
        sent_empties::refused_with,
    },
    prepare,
    reading::{number, same},
    workload::{self, CONTAINERS, IMAGES, SELECTOR},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status"],
    storage: Storage::Stored,
    default,
    validate,
    validate_sent: Some(|new, old, empties| refused_with(validate(new, old), empties)),
    prepare: prepare_daemon_set,
    columns: &[
        Column::name(),
        Column::integer("Desired", "Number of nodes that should run the pod."),
        Column::integer("Current", "Number of nodes that run at least one pod and should."),
        Column::integer("Ready", "Number of nodes with a ready pod that should run one."),
        Column::integer("Up-to-date", "Number of nodes that run a pod of the present template."),
        Column::integer("Available", "Number of nodes with an available pod that should run one."),
        Column::text("Node Selector", "Labels of the nodes that should run the pod."),
        Column::age(),
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.apps.v1.DaemonSet",
    ..BuiltIn::PLAIN
};

/// Counts the changes of the template. Deprecated, and still written by Kubernetes on every DaemonSet.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn default(object: &mut Value) {
    if object["metadata"].is_object() {
        fill(&mut object["metadata"], "annotations", || json!({}));
        fill(&mut object["metadata"]["annotations"], TEMPLATE_GENERATION, || json!("0"));
    }
    let Some(spec) = workload::spec_of(object) else { return };
    fill(spec, "template", || json!({}));
    if let Some(template) = spec.get_mut("template") {
        workload::default_template(template);
    }
    fill(spec, "updateStrategy", || json!({}));
    let strategy = &mut spec["updateStrategy"];
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(strategy, "rollingUpdate", || json!({}));
        fill(&mut strategy["rollingUpdate"], "maxUnavailable", || json!(1));
        fill(&mut strategy["rollingUpdate"], "maxSurge", || json!(0));
    }
    fill(spec, "revisionHistoryLimit", || json!(10));
}

fn prepare_daemon_set(new: &mut Value, old: Option<&Value>) {
    let initial = json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
        "numberReady": 0});
    prepare::keep_status(new, old, initial);
    workload::drop_unknown(new, old, "/spec/template");
    prepare::count_generation(new, old);
    let counted = |object: &Value| {
        let text = object["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
        text.and_then(|text| text.parse::<i64>().ok()).unwrap_or_default()
    };
    let generation = match old {
        None => counted(new).max(1),
        Some(old) => {
            let changed = !same(&new["spec"]["template"], &old["spec"]["template"]);
            counted(old).saturating_add(i64::from(changed))
        }
    };
    if let Some(metadata) = new.get_mut("metadata") {
        fill(metadata, "annotations", || json!({}));
        if metadata["annotations"].is_object() {
            metadata["annotations"][TEMPLATE_GENERATION] = generation.to_string().into();
        }
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(workload::immutable_selector(&new["spec"], old));
        errors.extend(validate_spec(&new["spec"]));
    }
    if let Some(old) = workload::changes_status(new, old) {
        let counted = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        errors.extend(workload::counts(&new["status"], &counted, &[]));
        errors.extend(workload::fewer_collisions(new, old));
    }
    errors
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let (selector, template) = (&spec["selector"], &spec["template"]);
    let mut errors = label_selector::validate("spec.selector", selector);
    if errors.is_empty() && !(selector.is_object() && label_selector::is_empty(selector)) {
        errors.extend(workload::finds_template(selector, template));
    }
    if selector.is_object() && label_selector::is_empty(selector) {
        errors.push(FieldError::invalid("spec.selector", selector, "empty selector is invalid for daemonset"));
    }
    errors.extend(workload::template("spec.template", template));
    errors.extend(workload::always_restarts("spec.template", template, "DaemonSet"));
    errors.extend(FieldError::negative("spec.minReadySeconds", &spec["minReadySeconds"]));
    errors.extend(update_strategy(&spec["updateStrategy"]));
    errors.extend(FieldError::negative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"]));
    errors
}

fn update_strategy(strategy: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.updateStrategy";
    let update = &strategy["rollingUpdate"];
    match strategy["type"].as_str() {
        Some("OnDelete") => Vec::new(),
        Some("RollingUpdate") if update.is_null() => {
            vec![FieldError::required(format!("{PATH}.rollingUpdate"), "")]
        }
        Some("RollingUpdate") => rolling_update(&format!("{PATH}.rollingUpdate"), update),
        _ => vec![FieldError::not_supported(PATH, strategy, &["RollingUpdate", "OnDelete"])],
    }
}

fn rolling_update(path: &str, update: &Value) -> Vec<FieldError> {
    let (unavailable, surge) = (&update["maxUnavailable"], &update["maxSurge"]);
    let (unavailable_path, surge_path) = (format!("{path}.maxUnavailable"), format!("{path}.maxSurge"));
    let mut errors = Vec::new();
    errors.extend(int_or_percent::validate(&unavailable_path, unavailable));
    errors.extend(int_or_percent::validate(&surge_path, surge));
    errors.extend(int_or_percent::not_more_than_all(&unavailable_path, unavailable));
    errors.extend(int_or_percent::not_more_than_all(&surge_path, surge));
    match (int_or_percent::amount(unavailable) != 0, int_or_percent::amount(surge) != 0) {
        (true, true) => {
            let why = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(surge_path, surge, why));
        }
        (false, false) => errors.push(FieldError::required(unavailable_path, "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
    errors
}

fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [containers, images, selector] = workload::cells(spec);
    let count = |field| Cell::integer(number(status, field));
    vec![
        Cell::name(object),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        Cell::text(workload::labels_text(&spec["template"]["spec"]["nodeSelector"])),
        Cell::age(object),
        containers,
        images,
        selector,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon_set(strategy: Value) -> Value {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "updateStrategy": strategy, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "a", "image": "x"}]}}}});
        default(&mut object);
        object
    }

    fn words(object: &Value, old: Option<&Value>) -> Vec<String> {
        validate(object, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn one_pod_at_a_time_is_replaced_unless_said() {
        let object = daemon_set(Value::Null);
        assert_eq!(
            object["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(words(&object, None), Vec::<String>::new());
        let both = daemon_set(json!({"rollingUpdate": {"maxSurge": 1}}));
        let path = "spec.updateStrategy.rollingUpdate";
        assert_eq!(
            words(&both, None),
            [format!("{path}.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero")]
        );
        let none = daemon_set(json!({"rollingUpdate": {"maxUnavailable": 0}}));
        assert_eq!(
            words(&none, None),
            [format!("{path}.maxUnavailable: Required value: cannot be 0 when maxSurge is 0")]
        );
    }

    #[test]
    fn a_change_of_the_template_is_counted_in_an_annotation() {
        let mut old = daemon_set(Value::Null);
        prepare_daemon_set(&mut old, None);
        assert_eq!(old["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        let mut new = old.clone();
        new["spec"]["minReadySeconds"] = 3.into();
        prepare_daemon_set(&mut new, Some(&old));
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        assert_eq!(new["metadata"]["generation"], 2);
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "y".into();
        prepare_daemon_set(&mut new, Some(&old));
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }

    #[test]
    fn the_selector_stays() {
        let old = daemon_set(Value::Null);
        let mut new = old.clone();
        new["spec"]["selector"] = json!({"matchLabels": {"a": "c"}});
        assert_eq!(
            words(&new, Some(&old)),
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable",
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
            ]
        );
    }
}
