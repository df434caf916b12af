//! AlwaysPullImages: every container's image is pulled whenever it starts, so that only who may pull an image runs it.
//!
//! Source: `plugin/pkg/admission/alwayspullimages`, whose words these are.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::plugins::{AdmissionContext, Mutate, Plugin, Validate};
use crate::{
    admission_plugins::PluginName,
    kinds::{
        FieldError, error_budget,
        pod::{CONTAINER_LISTS, all_containers},
        reading::{items, text},
    },
    request::Verb,
    status::Status,
};

/// Pods pull, and what is changed afterwards must pull, too.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(|context, pod| {
        if concerns(context, pod) {
            set(&mut pod["spec"]);
        }
        Ok(())
    })),
    validate: Some(Validate::Now(validate)),
    ..Plugin::named(PluginName::AlwaysPullImages)
};

const ALWAYS: &str = "Always";

/// Whether a write is about a pod with images that it did not have before.
fn concerns(context: &AdmissionContext<'_>, pod: &Value) -> bool {
    let is = |operation| context.is(operation, ("", "Pod"), None);
    is(Verb::Create)
        || is(Verb::Update) && context.request.old.is_some_and(|old| has_new_images(&pod["spec"], &old["spec"]))
}

fn has_new_images(new: &Value, old: &Value) -> bool {
    let old: HashSet<&str> = images(old).collect();
    images(new).any(|image| !old.contains(image))
}

fn images(spec: &Value) -> impl Iterator<Item = &str> {
    all_containers(spec).map(|container| text(container, "image"))
}

fn set(spec: &mut Value) {
    for list in CONTAINER_LISTS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["imagePullPolicy"] = ALWAYS.into();
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
            image["pullPolicy"] = ALWAYS.into();
        }
    }
}

fn validate(context: &AdmissionContext<'_>, pod: &Value) -> Result<(), Status> {
    if !concerns(context, pod) {
        return Ok(());
    }
    let errors = error_budget::within(|| violations(&pod["spec"]));
    let message = |error: &FieldError| context.forbidden(&format!("{}: {}", error.path, error.message)).message;
    // Of those that are the same, one is told.
    let mut seen = BTreeSet::new();
    let (errors, _) = error_budget::told(&errors);
    let messages: Vec<String> = errors.into_iter().map(message).filter(|text| seen.insert(text.clone())).collect();
    match messages.as_slice() {
        [] => Ok(()),
        // A list of errors is no error of the API to Kubernetes, even if it is a list of one.
        [one] => Err(Status::plain_error(one.as_str())),
        several => Err(Status::plain_error(format!("[{}]", several.join(", ")))),
    }
}

fn violations(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut check = |path: String, policy: &Value| {
        if policy != ALWAYS {
            errors.push(FieldError::not_supported(path, policy, &[ALWAYS]));
        }
    };
    for list in CONTAINER_LISTS {
        for (i, container) in items(&spec[list]).enumerate() {
            check(format!("spec.{list}[{i}].imagePullPolicy"), &container["imagePullPolicy"]);
        }
    }
    for (i, volume) in items(&spec["volumes"]).enumerate().filter(|(_, volume)| volume["image"].is_object()) {
        check(format!("spec.volumes[{i}].image.pullPolicy"), &volume["image"]["pullPolicy"]);
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_and_volumes_of_images_pull_always() {
        let mut spec = json!({"containers": [{"name": "c", "imagePullPolicy": "Never"}],
            "initContainers": [{"name": "i"}],
            "volumes": [{"name": "v", "image": {"reference": "r"}}, {"name": "e", "emptyDir": {}}]});
        let told: Vec<String> = violations(&spec).iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        assert_eq!(
            told,
            [
                "spec.initContainers[0].imagePullPolicy: Unsupported value: \"\": supported values: \"Always\"",
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.volumes[0].image.pullPolicy: Unsupported value: \"\": supported values: \"Always\"",
            ]
        );
        set(&mut spec);
        assert_eq!(violations(&spec), []);
        assert_eq!(spec["volumes"][1], json!({"name": "e", "emptyDir": {}}));
    }

    #[test]
    fn an_update_without_a_new_image_is_let_be() {
        let spec = |images: &[&str]| {
            let containers: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
            json!({"containers": containers})
        };
        assert!(!has_new_images(&spec(&["a"]), &spec(&["a", "b"])));
        assert!(has_new_images(&spec(&["a", "c"]), &spec(&["a", "b"])));
        let init = json!({"initContainers": [{"image": "a"}]});
        assert!(!has_new_images(&spec(&["a"]), &init), "whatever container had it");
    }
}
