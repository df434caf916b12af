//! PersistentVolumeClaim: storage that a pod asks for.

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, names,
    pod::{
        defaults::{fill, fill_text},
        resources,
    },
    prepare,
    quantity::Quantity,
    reading::{entries, same, text},
    volume_source::access_modes_text,
    workload,
};

pub mod spec;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    categories: &[],
    namespaced: true,
    subresources: &["status"],
    storage: Storage::Stored,
    default,
    validate,
    prepare: prepare_claim,
    columns: &[
        Column::name(),
        Column::text("Status", "Pending, Bound or Lost."),
        Column::text("Volume", "Volume that the claim is bound to."),
        Column::text("Capacity", "Size of that volume."),
        Column::text("Access Modes", "How that volume may be mounted."),
        Column::text("StorageClass", "StorageClass of the pvc"),
        Column::text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
        Column::age(),
        Column::wide("VolumeMode", "Filesystem or Block."),
    ],
    cells,
    schema: "io.k8s.api.core.v1.PersistentVolumeClaim",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

/// How the class of a claim or a volume was said before there was a field for it.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Fills in what is missing, in a claim or in the claims of a StatefulSet.
pub fn default(object: &mut Value) {
    if let Some(spec) = workload::spec_of(object) {
        spec::default(spec);
    }
    fill(object, "status", || json!({}));
    fill_text(&mut object["status"], "phase", "Pending");
    resources::round_lists(&mut object["status"], &["capacity", "allocatedResources"]);
}

fn prepare_claim(new: &mut Value, old: Option<&Value>) {
    prepare::keep_status(new, old, json!({"phase": "Pending"}));
    let Some(spec) = new.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    // Sources in other namespaces are a feature that is off; who has a source keeps it.
    let had_reference = old.is_some_and(|old| !old["spec"]["dataSourceRef"].is_null());
    if !had_reference
        && !text(&spec["dataSourceRef"], "namespace").is_empty()
        && let Some(spec) = spec.as_object_mut()
    {
        spec.shift_remove("dataSourceRef");
    }
    let had_source =
        old.is_some_and(|old| !old["spec"]["dataSource"].is_null() || !old["spec"]["dataSourceRef"].is_null());
    let source = &spec["dataSource"];
    let known = matches!(
        (text(source, "kind"), text(source, "apiGroup")),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
    );
    // The older of the two fields takes these two kinds alone, and drops others.
    if !had_source
        && spec["dataSourceRef"].is_null()
        && !known
        && let Some(spec) = spec.as_object_mut()
    {
        spec.shift_remove("dataSource");
    }
    let copy = |from: &Value| {
        let fields = ["apiGroup", "kind", "name"].into_iter().filter(|field| !from[*field].is_null());
        Value::Object(fields.map(|field| (field.to_owned(), from[field].clone())).collect())
    };
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if !source.is_null() && reference.is_null() {
        spec["dataSourceRef"] = copy(source);
    } else if !reference.is_null() && source.is_null() && text(reference, "namespace").is_empty() {
        spec["dataSource"] = copy(reference);
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let reclassified = old.is_some_and(|old| class_annotation(new) != class_annotation(old));
    if workload::changes_spec(new, old) || reclassified {
        errors.extend(spec::validate("spec", &new["spec"]));
        errors.extend(old.map(|old| changes(new, old)).unwrap_or_default());
    }
    if workload::changes_status(new, old).is_some() {
        errors.extend(validate_status(&new["status"]));
    }
    errors
}

fn class_annotation(object: &Value) -> &Value {
    &object["metadata"]["annotations"][CLASS_ANNOTATION]
}

fn changes(new: &Value, old: &Value) -> Vec<FieldError> {
    let (now, was) = (&new["spec"], &old["spec"]);
    let mut errors = Vec::new();
    let bound = new["status"]["phase"] == "Bound";
    // A claim without a class may get one: the class that its annotation says, or any if there is none.
    let annotated = class_annotation(old);
    let classified = was["storageClassName"].is_null()
        && !now["storageClassName"].is_null()
        && (annotated.is_null() || now["storageClassName"] == *annotated);
    let moved_to_field = classified && !annotated.is_null();
    if class_annotation(new) != annotated && !(moved_to_field && class_annotation(new).is_null()) {
        let path = format!("metadata.annotations.{CLASS_ANNOTATION}");
        errors.push(FieldError::immutable(path, &json!(class_annotation(new).as_str().unwrap_or_default())));
    }
    let mut expected = was.clone();
    if text(was, "volumeName").is_empty() {
        expected["volumeName"] = now["volumeName"].clone();
    }
    if classified {
        expected["storageClassName"] = now["storageClassName"].clone();
    }
    if bound {
        expected["resources"]["requests"]["storage"] = now["resources"]["requests"]["storage"].clone();
        expected["volumeAttributesClassName"] = now["volumeAttributesClassName"].clone();
    }
    let changed = changed_fields(now, &expected);
    if !changed.is_empty() {
        let why = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n\
             changed: {}",
            changed.join(", ")
        );
        errors.push(FieldError::forbidden("spec", &why));
    }
    let size = |object: &Value| Quantity::of(&object["requests"]["storage"]).unwrap_or(Quantity::ZERO);
    let (size, before) = (size(&now["resources"]), size(&was["resources"]));
    let capacity = Quantity::of(&old["status"]["capacity"]["storage"]).unwrap_or(Quantity::ZERO);
    if size < before && size <= capacity {
        let why = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", why));
    }
    if !same(&now["volumeMode"], &was["volumeMode"]) {
        errors.push(FieldError::immutable("volumeMode", &now["volumeMode"]));
    }
    let class = &now["volumeAttributesClassName"];
    if *class != was["volumeAttributesClassName"] && !old["status"]["currentVolumeAttributesClassName"].is_null() {
        let what = match class.as_str() {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return errors,
        };
        let why = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", &why));
    }
    errors
}

/// The fields in which two objects differ, in the order of their names.
pub fn changed_fields(a: &Value, b: &Value) -> Vec<String> {
    let mut fields: Vec<String> = entries(a).chain(entries(b)).map(|(field, _)| field.clone()).collect();
    fields.sort();
    fields.dedup();
    fields.retain(|field| !same(&a[field], &b[field]));
    fields
}

fn validate_status(status: &Value) -> Vec<FieldError> {
    const RESIZES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let mut errors = Vec::new();
    for (name, amount) in entries(&status["capacity"]) {
        errors.extend(negative_amount(format!("status.capacity[{name}]"), amount));
    }
    const STATUSES: &str = "status.allocatedResourceStatuses";
    for (name, value) in entries(&status["allocatedResourceStatuses"]) {
        errors.extend(resource_key(STATUSES, name));
        if !RESIZES.contains(&value.as_str().unwrap_or_default()) {
            errors.push(FieldError::not_supported(STATUSES, &json!(name), &RESIZES));
        }
    }
    const ALLOCATED: &str = "status.allocatedResources";
    for (name, amount) in entries(&status["allocatedResources"]) {
        let mut wrong = resource_key(ALLOCATED, name);
        if wrong.is_empty() {
            wrong.extend(negative_amount(format!("{ALLOCATED}[{name}]"), amount));
        }
        errors.extend(wrong);
    }
    errors
}

fn negative_amount(path: String, amount: &Value) -> Option<FieldError> {
    let units = Quantity::of(amount)?.units();
    (units < 0).then(|| FieldError::invalid(path, &json!(units), "must be a valid resource quantity"))
}

fn resource_key(path: &str, name: &str) -> Vec<FieldError> {
    let wrong = FieldError::each(path, &json!(name), names::qualified_name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if wrong.is_empty() && native && name != "storage" {
        return vec![FieldError::not_supported(path, &json!(name), &["storage"])];
    }
    wrong
}

/// The class of a claim or a volume: the annotation's, or else the field's.
pub fn class(object: &Value) -> &str {
    class_annotation(object).as_str().unwrap_or_else(|| text(&object["spec"], "storageClassName"))
}

fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let deleted = !object["metadata"]["deletionTimestamp"].is_null();
    let bound = !text(spec, "volumeName").is_empty();
    let capacity = Quantity::of(&status["capacity"]["storage"]).unwrap_or(Quantity::ZERO);
    vec![
        Cell::name(object),
        Cell::text(if deleted { "Terminating" } else { text(status, "phase") }),
        Cell::text(text(spec, "volumeName")),
        Cell::text(if bound { capacity.to_string() } else { String::new() }),
        Cell::text(if bound { access_modes_text(&status["accessModes"]) } else { String::new() }),
        Cell::text(class(object)),
        Cell::text(spec["volumeAttributesClassName"].as_str().unwrap_or("<unset>")),
        Cell::age(object),
        Cell::text(spec["volumeMode"].as_str().unwrap_or("<unset>")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(fields: Value) -> Value {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        for (field, value) in fields.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        default(&mut object);
        prepare_claim(&mut object, None);
        object
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        validate(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_claim_asks_for_an_amount_in_a_mode() {
        assert_eq!(words(&claim(json!({})), None), Vec::<String>::new());
        assert_eq!(
            words(&claim(json!({"accessModes": [], "resources": {}})), None),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value"
            ]
        );
        assert_eq!(
            words(&claim(json!({"resources": {"requests": {"storage": "0"}}})), None),
            ["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"]
        );
        assert_eq!(words(&claim(json!({"volumeMode": "Tape", "storageClassName": "A"})), None).len(), 2);
    }

    #[test]
    fn data_sources_are_said_in_both_fields() {
        let from = json!({"kind": "PersistentVolumeClaim", "name": "other"});
        assert_eq!(claim(json!({"dataSource": from}))["spec"]["dataSourceRef"], from);
        assert_eq!(claim(json!({"dataSourceRef": from}))["spec"]["dataSource"], from);
        let elsewhere = json!({"kind": "PersistentVolumeClaim", "name": "x", "namespace": "other"});
        assert!(claim(json!({"dataSourceRef": elsewhere}))["spec"]["dataSourceRef"].is_null());
        let unknown = claim(json!({"dataSource": {"kind": "Tape", "name": "t"}}));
        assert!(unknown["spec"]["dataSource"].is_null() && unknown["spec"]["dataSourceRef"].is_null());
        let apart = claim(json!({"dataSource": from, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "x"}}));
        assert_eq!(words(&apart, None), ["spec: Invalid value: {}: must match dataSourceRef"]);
    }

    #[test]
    fn a_bound_claim_grows_and_changes_nothing_else() {
        let mut old = claim(json!({"storageClassName": "fast"}));
        let mut new = old.clone();
        new["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
        assert!(words(&new, Some(&old))[0].starts_with("spec: Forbidden: spec is immutable after creation except"));
        for object in [&mut old, &mut new] {
            object["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        }
        assert_eq!(words(&new, Some(&old)), Vec::<String>::new());
        assert_eq!(
            words(&old, Some(&new)),
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
        );
        new["spec"]["accessModes"] = json!(["ReadOnlyMany"]);
        assert!(words(&new, Some(&old))[0].ends_with("changed: accessModes"));
    }

    #[test]
    fn a_class_can_be_said_later_and_a_volume_once() {
        let old = claim(json!({}));
        let mut new = old.clone();
        new["spec"]["storageClassName"] = "fast".into();
        new["spec"]["volumeName"] = "v".into();
        assert_eq!(words(&new, Some(&old)), Vec::<String>::new());
        assert_eq!(words(&old, Some(&new)).len(), 1);
        let mut annotated = old.clone();
        annotated["metadata"]["annotations"] = json!({CLASS_ANNOTATION: "slow"});
        assert!(
            words(&annotated, Some(&old))[0]
                .starts_with("metadata.annotations.volume.beta.kubernetes.io/storage-class")
        );
    }
}
