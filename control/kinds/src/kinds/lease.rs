//! Lease: who holds something, and when they last said so.

use std::collections::BTreeMap;

use super::{BuiltIn, Cell, Column, FieldError, Storage};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    default: |_| {},
    validate: |new, _| {
        let spec = &new["spec"];
        let duration = &spec["leaseDurationSeconds"];
        let positive = duration.as_i64().is_none_or(|n| n > 0);
        let too_short = || FieldError::invalid("spec.leaseDurationSeconds", duration, "must be greater than 0");
        let negative = FieldError::negative("spec.leaseTransitions", &spec["leaseTransitions"]);
        (!positive).then(too_short).into_iter().chain(negative).collect()
    },
    // Fields of a feature that Kubernetes 1.35 has switched off.
    prepare: |new, old| {
        for field in ["preferredHolder", "strategy"] {
            let is_stored = old.is_some_and(|old| !old["spec"][field].is_null());
            if let Some(spec) = new.get_mut("spec").and_then(serde_json::Value::as_object_mut).filter(|_| !is_stored) {
                spec.shift_remove(field);
            }
        }
    },
    columns: &[Column::name(), Column::text("Holder", "Identity of the holder."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::text(o["spec"]["holderIdentity"].as_str().unwrap_or_default()), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.coordination.v1.Lease",
    updates_name_version: true,
    creates_on_update: true,
    ..BuiltIn::PLAIN
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_of_a_feature_that_is_off_are_dropped_unless_they_are_stored() {
        let sent =
            json!({"spec": {"holderIdentity": "a", "strategy": "OldestEmulationVersion", "preferredHolder": "b"}});
        let mut new = sent.clone();
        (KIND.prepare)(&mut new, None);
        assert_eq!(new["spec"], json!({"holderIdentity": "a"}));
        let mut kept = sent.clone();
        (KIND.prepare)(&mut kept, Some(&sent));
        assert_eq!(kept, sent);
    }

    #[test]
    fn a_lease_lasts_and_changes_hands_forwards() {
        let paths =
            |spec| (KIND.validate)(&json!({"spec": spec}), None).into_iter().map(|e| e.path).collect::<Vec<_>>();
        assert!(paths(json!({"leaseDurationSeconds": 1, "leaseTransitions": 0})).is_empty());
        assert_eq!(
            paths(json!({"leaseDurationSeconds": 0, "leaseTransitions": -1})),
            ["spec.leaseDurationSeconds", "spec.leaseTransitions"]
        );
    }
}
