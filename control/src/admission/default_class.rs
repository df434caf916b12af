//! DefaultStorageClass and DefaultIngressClass: a claim or an Ingress that names no class gets the newest of those that
//! are marked as the default.
//!
//! Source: `plugin/pkg/admission/storage/storageclass/setdefault` and
//! `plugin/pkg/admission/network/defaultingressclass`.

use std::{cmp::Reverse, sync::Arc};

use serde_json::Value;

use super::plugins::{AdmissionContext, Mutate, Plugin};
use crate::{admission_plugins::PluginName, kinds::reading::text, request::Verb, status::Status};

/// Where StorageClasses are stored.
pub const STORAGE_CLASSES: &str = "storageclasses.storage.k8s.io";
/// Where IngressClasses are stored.
pub const INGRESS_CLASSES: &str = "ingressclasses.networking.k8s.io";

/// New claims get the default StorageClass.
pub static STORAGE_PLUGIN: Plugin =
    Plugin { mutate: Some(Mutate::Now(default_storage_class)), ..Plugin::named(PluginName::DefaultStorageClass) };

/// New Ingresses get the default IngressClass.
pub static INGRESS_PLUGIN: Plugin =
    Plugin { mutate: Some(Mutate::Now(default_ingress_class)), ..Plugin::named(PluginName::DefaultIngressClass) };

fn default_storage_class(context: &AdmissionContext<'_>, claim: &mut Value) -> Result<(), Status> {
    if context.is(Verb::Create, ("", "PersistentVolumeClaim"), None) {
        set_for_claim(claim, || context.readings.storage_classes.list(context.request.snapshot, ""));
    }
    Ok(())
}

fn default_ingress_class(context: &AdmissionContext<'_>, ingress: &mut Value) -> Result<(), Status> {
    if context.is(Verb::Create, ("networking.k8s.io", "Ingress"), None) {
        set_for_ingress(ingress, || context.readings.ingress_classes.list(context.request.snapshot, ""));
    }
    Ok(())
}

/// The name of a claim's class before there was a field for it.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// What a class says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultClass {
    is_default: bool,
    /// RFC 3339 in UTC, so that later ones are greater.
    created: String,
    /// Of a StorageClass: whether its volumes can grow.
    pub expands: bool,
}

/// Reads a stored StorageClass.
pub fn read_storage(class: &Value) -> DefaultClass {
    let annotations = &class["metadata"]["annotations"];
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    DefaultClass {
        is_default: marks.iter().any(|mark| text(annotations, mark) == "true"),
        created: text(&class["metadata"], "creationTimestamp").to_owned(),
        expands: class["allowVolumeExpansion"] == true,
    }
}

/// Reads a stored IngressClass.
pub fn read_ingress(class: &Value) -> DefaultClass {
    let annotations = &class["metadata"]["annotations"];
    DefaultClass {
        is_default: text(annotations, "ingressclass.kubernetes.io/is-default-class") == "true",
        created: text(&class["metadata"], "creationTimestamp").to_owned(),
        expands: false,
    }
}

/// Gives a claim without a class the default.
fn set_for_claim(claim: &mut Value, classes: impl FnOnce() -> Vec<(Arc<str>, Arc<DefaultClass>)>) {
    let named = !claim["spec"]["storageClassName"].is_null() || has_annotation(claim, BETA_CLASS);
    if let Some(class) = (!named).then(classes).and_then(newest_default) {
        claim["spec"]["storageClassName"] = (*class).into();
    }
}

/// Gives an Ingress without a class the default.
fn set_for_ingress(ingress: &mut Value, classes: impl FnOnce() -> Vec<(Arc<str>, Arc<DefaultClass>)>) {
    let named =
        !ingress["spec"]["ingressClassName"].is_null() || has_annotation(ingress, "kubernetes.io/ingress.class");
    if let Some(class) = (!named).then(classes).and_then(newest_default) {
        ingress["spec"]["ingressClassName"] = (*class).into();
    }
}

/// The class that a claim names; empty if it names none.
pub fn of_claim(claim: &Value) -> &str {
    match claim["metadata"]["annotations"].get(BETA_CLASS).and_then(Value::as_str) {
        Some(class) => class,
        None => text(&claim["spec"], "storageClassName"),
    }
}

fn has_annotation(object: &Value, key: &str) -> bool {
    object["metadata"]["annotations"].get(key).is_some_and(|value| !value.is_null())
}

fn newest_default(classes: Vec<(Arc<str>, Arc<DefaultClass>)>) -> Option<Arc<str>> {
    let defaults = classes.into_iter().filter(|(_, class)| class.is_default);
    defaults.min_by_key(|(name, class)| (Reverse(class.created.clone()), name.clone())).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn classes(read: fn(&Value) -> DefaultClass, mark: &str) -> Vec<(Arc<str>, Arc<DefaultClass>)> {
        let class = |name: &str, created: &str, default: &str| {
            let class = json!({"metadata": {"creationTimestamp": created, "annotations": {mark: default}}});
            (Arc::from(name), Arc::new(read(&class)))
        };
        vec![
            class("newest", "2024-01-03T00:00:00Z", "false"),
            class("old", "2024-01-01T00:00:00Z", "true"),
            class("b", "2024-01-02T00:00:00Z", "true"),
            class("a", "2024-01-02T00:00:00Z", "true"),
        ]
    }

    #[test]
    fn a_claim_without_a_class_gets_the_newest_default() {
        let known = || classes(read_storage, "storageclass.kubernetes.io/is-default-class");
        let mut claim = json!({"spec": {}});
        set_for_claim(&mut claim, known);
        assert_eq!(claim["spec"]["storageClassName"], "a");
        let cases =
            [json!({"spec": {"storageClassName": ""}}), json!({"metadata": {"annotations": {BETA_CLASS: "x"}}})];
        for mut named in cases {
            let before = named.clone();
            set_for_claim(&mut named, known);
            assert_eq!(named, before);
        }
        let mut claim = json!({"spec": {}});
        set_for_claim(&mut claim, Vec::new);
        assert_eq!(claim, json!({"spec": {}}), "there is no default");
    }

    #[test]
    fn an_ingress_without_a_class_gets_the_newest_default() {
        let known = || classes(read_ingress, "ingressclass.kubernetes.io/is-default-class");
        let mut ingress = json!({"spec": {}});
        set_for_ingress(&mut ingress, known);
        assert_eq!(ingress["spec"]["ingressClassName"], "a");
        let mut old = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": {}});
        set_for_ingress(&mut old, known);
        assert!(old["spec"].get("ingressClassName").is_none());
    }
}
