//! StorageObjectInUseProtection: new volumes, claims and VolumeAttributesClasses get a finalizer, which a controller
//! takes away when they are being deleted and nothing uses them.
//!
//! Source: `plugin/pkg/admission/storage/storageobjectinuseprotection`.

use serde_json::{Value, json};

use super::plugins::{AdmissionContext, Mutate, Plugin};
use crate::{
    admission_plugins::PluginName,
    kinds::protection_finalizer::{ATTRIBUTES_CLASS, CLAIM, VOLUME},
    request::Verb,
    status::Status,
};

/// New objects that storage controllers protect get their finalizer.
pub static PLUGIN: Plugin =
    Plugin { mutate: Some(Mutate::Now(mutate)), ..Plugin::named(PluginName::StorageObjectInUseProtection) };

fn mutate(context: &AdmissionContext<'_>, object: &mut Value) -> Result<(), Status> {
    let protected = [
        (("", "PersistentVolumeClaim"), CLAIM),
        (("", "PersistentVolume"), VOLUME),
        (("storage.k8s.io", "VolumeAttributesClass"), ATTRIBUTES_CLASS),
    ];
    for (kind, finalizer) in protected {
        if context.is(Verb::Create, kind, None) {
            add(object, finalizer);
        }
    }
    Ok(())
}

/// Gives an object a finalizer after those that it has.
fn add(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|one| one == finalizer) => {}
        Some(list) => list.push(finalizer.into()),
        None => *finalizers = json!([finalizer]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finalizer_is_added_once_behind_those_of_the_client() {
        let mut claim = json!({"metadata": {"name": "a"}});
        add(&mut claim, CLAIM);
        assert_eq!(claim["metadata"]["finalizers"], json!([CLAIM]));
        let mut claim = json!({"metadata": {"finalizers": ["a.io/b"]}});
        add(&mut claim, CLAIM);
        add(&mut claim, CLAIM);
        assert_eq!(claim["metadata"]["finalizers"], json!(["a.io/b", CLAIM]));
    }
}
