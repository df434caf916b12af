//! PersistentVolumeClaimResize: a claim grows only once it is bound, and only if its StorageClass lets volumes grow.
//!
//! Source: `plugin/pkg/admission/storage/persistentvolume/resize`, whose words these are.

use serde_json::Value;

use super::{
    default_class,
    plugins::{AdmissionContext, Plugin, Validate},
};
use crate::{
    admission_plugins::PluginName,
    kinds::{quantity::Quantity, reading::text},
    request::Verb,
    status::Status,
};

/// Changed claims grow only where they can.
pub static PLUGIN: Plugin =
    Plugin { validate: Some(Validate::Now(validate)), ..Plugin::named(PluginName::PersistentVolumeClaimResize) };

fn validate(context: &AdmissionContext<'_>, claim: &Value) -> Result<(), Status> {
    let old = context.request.old.filter(|_| context.is(Verb::Update, ("", "PersistentVolumeClaim"), None));
    let classes = &context.readings.storage_classes;
    let expands = |class: &str| classes.get(context.request.snapshot, class).is_some_and(|class| class.expands);
    let violation = old.and_then(|old| violation(claim, old, expands));
    violation.map_or(Ok(()), |why| Err(context.forbidden(why)))
}

/// Why the claim `new` may not take the place of `old`. `expands` tells of a StorageClass whether it lets volumes grow.
fn violation(new: &Value, old: &Value, expands: impl FnOnce(&str) -> bool) -> Option<&'static str> {
    let size =
        |claim: &Value| Quantity::of(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO);
    if size(new) <= size(old) {
        return None;
    }
    if text(&old["status"], "phase") != "Bound" {
        return Some("Only bound persistent volume claims can be expanded");
    }
    let (class, before) = (default_class::of_claim(new), default_class::of_claim(old));
    let allowed = !class.is_empty() && class == before && expands(class);
    (!allowed).then_some(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
        resize",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_bound_claims_of_a_class_that_expands_grow() {
        let claim = |size: &str, class: &str, phase: &str| {
            json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}},
                "status": {"phase": phase}})
        };
        let expands = |class: &str| class == "grows";
        let old = claim("1Gi", "grows", "Bound");
        assert_eq!(violation(&claim("2Gi", "grows", "Bound"), &old, expands), None);
        assert_eq!(violation(&claim("1Gi", "other", "Bound"), &old, expands), None);
        let unbound = violation(&claim("2Gi", "grows", "Pending"), &claim("1Gi", "grows", "Pending"), expands);
        assert_eq!(unbound, Some("Only bound persistent volume claims can be expanded"));
        for (old, new) in [("fixed", "fixed"), ("", ""), ("grows", "fixed")] {
            let why = violation(&claim("2Gi", new, "Bound"), &claim("1Gi", old, "Bound"), expands);
            assert!(why.unwrap().starts_with("only dynamically provisioned pvc can be resized"), "{old} {new}");
        }
    }
}
