//! PodTemplate: a pod template as an object of its own, for whoever makes pods of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage,
    pod::{defaults::fill, sent_empties::refused_with},
    prepare, workload,
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    default,
    validate,
    validate_sent: Some(|new, old, empties| refused_with(validate(new, old), empties)),
    prepare: |new, old| {
        workload::drop_unknown(new, old, "/template");
        prepare::count_generation(new, old);
    },
    columns: &[
        Column::name(),
        Column::text("Containers", "Names of each container in the template."),
        Column::text("Images", "Images referenced by each container in the template."),
        Column::text("Pod Labels", "The labels for the pod template."),
    ],
    cells: |o| {
        let [containers, images] = workload::containers(&o["template"]);
        let labels = workload::labels_text(&o["template"]["metadata"]["labels"]);
        vec![Cell::name(o), containers, images, Cell::text(labels)]
    },
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.PodTemplate",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

fn default(object: &mut Value) {
    fill(object, "template", || json!({}));
    if let Some(template) = object.get_mut("template") {
        workload::default_template(template);
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if old.is_some_and(|old| old["template"] == new["template"]) {
        return Vec::new();
    }
    workload::template("template", &new["template"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_template_is_one_of_pods() {
        let mut object = json!({"metadata": {"name": "t"}, "template": {"metadata": {"labels": {"a": "b"}}}});
        default(&mut object);
        assert_eq!(object["template"]["spec"]["restartPolicy"], "Always");
        let errors = validate(&object, None);
        assert_eq!((errors[0].path.as_str(), errors.len()), ("template.spec.containers", 1));
        assert_eq!(validate(&object, Some(&object)), []);
    }
}
