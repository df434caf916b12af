//! How Deployments compare pod templates, and derive a hash for their names.

use fairlead_client::Json;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::PodTemplateSpec};

use crate::objects::name_hash::name_hash;

/// Label by which the pods of one revision differ from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Names the template: equal templates (and collision counts) have equal names.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // A typed template always serialises: its maps are keyed by strings.
    name_hash(template.encode().unwrap_or_default(), collisions)
}

/// Whether `set` runs `template`, apart from the hash label that Deployments add.
pub fn runs(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(own) = set.spec.as_ref().and_then(|s| s.template.as_ref()) else { return false };
    own.spec == template.spec && same_metadata(own, template)
}

fn same_metadata(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let part = |template: &PodTemplateSpec| {
        let meta = template.metadata.clone().unwrap_or_default();
        let mut labels = meta.labels.unwrap_or_default();
        labels.remove(HASH_LABEL);
        (labels, meta.annotations.unwrap_or_default(), meta.finalizers.unwrap_or_default())
    };
    part(a) == part(b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}))
        .expect("a valid template")
    }

    #[test]
    fn the_hash_depends_on_the_template_and_on_the_collisions() {
        assert_eq!(hash(&template("a"), 0), hash(&template("a"), 0));
        assert_ne!(hash(&template("a"), 0), hash(&template("b"), 0));
        assert_ne!(hash(&template("a"), 0), hash(&template("a"), 1));
    }

    #[test]
    fn the_hash_label_does_not_make_a_template_differ() {
        let set: ReplicaSet = serde_json::from_value(json!({"spec": {"selector": {}, "template": {
            "metadata": {"creationTimestamp": null, "labels": {"app": "web", HASH_LABEL: "xyz"}},
            "spec": {"containers": [{"name": "c", "image": "a"}]}}}}))
        .expect("a valid set");
        assert!(runs(&set, &template("a")));
        assert!(!runs(&set, &template("b")));
    }
}
