//! StatefulSet: pods of one template that keep their names and their volumes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, int_or_percent, names, persistent_volume_claim,
    pod::{
        defaults::{fill, fill_text},
        sent_empties::refused_with,
    },
    prepare,
    reading::{entries, items, number, same, text},
    workload::{self, CONTAINERS, IMAGES},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    namespaced: true,
    subresources: &["scale", "status"],
    storage: Storage::Stored,
    object_name: names::label,
    default,
    validate,
    validate_sent: Some(|new, old, empties| refused_with(validate(new, old), empties)),
    prepare: prepare_stateful_set,
    columns: &[
        Column::name(),
        Column::text("Ready", "Number of the pod with ready state"),
        Column::age(),
        CONTAINERS,
        IMAGES,
    ],
    cells: |o| {
        let [containers, images] = workload::containers(&o["spec"]["template"]);
        let ready = format!("{}/{}", number(&o["status"], "readyReplicas"), number(&o["spec"], "replicas"));
        vec![Cell::name(o), Cell::text(ready), Cell::age(o), containers, images]
    },
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.apps.v1.StatefulSet",
    ..BuiltIn::PLAIN
};

fn default(object: &mut Value) {
    let Some(spec) = workload::spec_of(object) else { return };
    workload::default(spec);
    fill_text(spec, "podManagementPolicy", "OrderedReady");
    fill(spec, "updateStrategy", || json!({}));
    let strategy = &mut spec["updateStrategy"];
    if text(strategy, "type").is_empty() {
        fill_text(strategy, "type", "RollingUpdate");
        fill(strategy, "rollingUpdate", || json!({}));
    }
    if strategy["type"] == "RollingUpdate" && strategy["rollingUpdate"].is_object() {
        fill(&mut strategy["rollingUpdate"], "partition", || json!(0));
    }
    fill(spec, "persistentVolumeClaimRetentionPolicy", || json!({}));
    fill_text(&mut spec["persistentVolumeClaimRetentionPolicy"], "whenDeleted", "Retain");
    fill_text(&mut spec["persistentVolumeClaimRetentionPolicy"], "whenScaled", "Retain");
    fill(spec, "revisionHistoryLimit", || json!(10));
    for claim in spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
        claim["apiVersion"] = "v1".into();
        claim["kind"] = "PersistentVolumeClaim".into();
        persistent_volume_claim::default(claim);
    }
}

fn prepare_stateful_set(new: &mut Value, old: Option<&Value>) {
    prepare::keep_status(new, old, json!({"replicas": 0, "availableReplicas": 0}));
    // `maxUnavailable` is for clusters with the feature MaxUnavailableStatefulSet, which is off in Kubernetes 1.35.
    let update = |object: &Value| object["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"].is_null();
    if old.is_none_or(update)
        && let Some(update) = new.pointer_mut("/spec/updateStrategy/rollingUpdate").and_then(Value::as_object_mut)
    {
        update.shift_remove("maxUnavailable");
    }
    workload::drop_unknown(new, old, "/spec/template");
    prepare::count_generation(new, old);
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(validate_spec(&new["spec"], old.is_none()));
        errors.extend(old.and_then(|old| forbidden_change(&new["spec"], &old["spec"])));
    }
    if let Some(old) = workload::changes_status(new, old) {
        errors.extend(validate_status(new, old));
    }
    errors
}

fn validate_spec(spec: &Value, is_new: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let policy = &spec["podManagementPolicy"];
    match policy.as_str() {
        None | Some("") => errors.push(FieldError::required("spec.podManagementPolicy", "")),
        Some("OrderedReady" | "Parallel") => {}
        Some(_) => {
            let why = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid("spec.podManagementPolicy", policy, why));
        }
    }
    errors.extend(update_strategy(&spec["updateStrategy"]));
    for field in ["whenDeleted", "whenScaled"] {
        let policy = &spec["persistentVolumeClaimRetentionPolicy"][field];
        let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        errors.extend(FieldError::unsupported(path, policy, &["Retain", "Delete"]));
    }
    if is_new {
        for (i, claim) in items(&spec["volumeClaimTemplates"]).enumerate() {
            let path = format!("spec.volumeClaimTemplates[{i}].spec");
            errors.extend(persistent_volume_claim::spec::validate(&path, &claim["spec"]));
        }
    }
    errors.extend(FieldError::negative("spec.replicas", &spec["replicas"]));
    errors.extend(FieldError::negative("spec.minReadySeconds", &spec["minReadySeconds"]));
    errors.extend(FieldError::negative("spec.ordinals.start", &spec["ordinals"]["start"]));
    if is_new && !text(spec, "serviceName").is_empty() {
        errors.extend(FieldError::each("spec.serviceName", &spec["serviceName"], names::label));
    }
    errors.extend(workload::selected(spec, "statefulset", ""));
    let template = &spec["template"];
    if workload::is_well_formed(&spec["selector"]) {
        errors.extend(workload::template("spec.template", &with_claims(spec)));
    }
    errors.extend(workload::always_restarts("spec.template", template, "StatefulSet"));
    errors
}

/// The template as its pods have it: with volumes for the claims, which replace those of the same name, and without a
/// name of its own.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let names: BTreeSet<&str> = items(&spec["volumeClaimTemplates"]).map(|c| text(&c["metadata"], "name")).collect();
    let claimed = names.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    let own = items(&spec["template"]["spec"]["volumes"]).filter(|volume| !names.contains(text(volume, "name")));
    let volumes: Vec<Value> = claimed.chain(own.cloned()).collect();
    if let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) {
        if !names.is_empty() {
            pod.insert("volumes".into(), volumes.into());
        }
        pod.shift_remove("subdomain");
        pod.shift_remove("hostname");
    }
    template
}

fn update_strategy(strategy: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.updateStrategy";
    let update = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "" => vec![FieldError::required(PATH, "")],
        "OnDelete" if update.is_null() => Vec::new(),
        "OnDelete" => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            vec![FieldError::invalid(format!("{PATH}.rollingUpdate"), update, why)]
        }
        "RollingUpdate" => rolling_update(&format!("{PATH}.rollingUpdate"), update),
        _ => vec![FieldError::invalid(PATH, strategy, "must be 'RollingUpdate' or 'OnDelete'")],
    }
}

fn rolling_update(path: &str, update: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        FieldError::negative(format!("{path}.partition"), &update["partition"]).into_iter().collect();
    let (path, value) = (format!("{path}.maxUnavailable"), &update["maxUnavailable"]);
    if !value.is_null() {
        errors.extend(int_or_percent::validate(&path, value));
        if int_or_percent::amount(value) == 0 {
            errors.push(FieldError::invalid(&path, value, "cannot be 0"));
        }
        errors.extend(int_or_percent::not_more_than_all(&path, value));
    }
    errors
}

fn forbidden_change(new: &Value, old: &Value) -> Option<FieldError> {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "template",
        "updateStrategy",
        "minReadySeconds",
        "ordinals",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
    ];
    let fields = entries(new).chain(entries(old)).map(|(field, _)| field.as_str());
    let changed = fields.filter(|field| !MUTABLE.contains(field)).any(|field| !same(&new[field], &old[field]));
    let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
               'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    changed.then(|| FieldError::forbidden("spec", why))
}

fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let status = &new["status"];
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let counted = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    let mut errors = workload::counts(status, &counted, &parts);
    errors.extend(workload::more_available_than_ready(status, "status.readyReplicas"));
    errors.extend(workload::fewer_collisions(new, old));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stateful_set() -> Value {
        let mut object = json!({"metadata": {"name": "db"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
                {"name": "a", "image": "x", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}});
        default(&mut object);
        object
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        validate(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_claim_is_a_volume_of_its_pods() {
        let object = stateful_set();
        assert_eq!(words(&object, None), Vec::<String>::new());
        let claim = &object["spec"]["volumeClaimTemplates"][0];
        assert_eq!(
            (&claim["kind"], &claim["spec"]["volumeMode"]),
            (&json!("PersistentVolumeClaim"), &json!("Filesystem"))
        );
        assert_eq!(claim["status"]["phase"], "Pending");
        let mut without = object.clone();
        without["spec"]["volumeClaimTemplates"] = json!([]);
        assert_eq!(
            words(&without, None),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]
        );
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let spec = &stateful_set()["spec"];
        assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!((&spec["podManagementPolicy"], &spec["replicas"]), (&json!("OrderedReady"), &json!(1)));
    }

    #[test]
    fn most_of_the_spec_stays() {
        let old = stateful_set();
        let mut new = old.clone();
        new["spec"]["replicas"] = 3.into();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "y".into();
        assert_eq!(words(&new, Some(&old)), Vec::<String>::new());
        new["spec"]["serviceName"] = "other".into();
        assert!(
            words(&new, Some(&old))[0]
                .starts_with("spec: Forbidden: updates to statefulset spec for fields other than")
        );
    }

    #[test]
    fn a_strategy_on_delete_updates_nothing_by_itself() {
        let mut object = stateful_set();
        object["spec"]["updateStrategy"] = json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}});
        assert_eq!(
            words(&object, None),
            [
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'"
            ]
        );
    }
}
