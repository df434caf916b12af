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
    prepare: |_, _| {},
    columns: &[Column::name(), Column::text("Holder", "Identity of the holder."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::text(o["spec"]["holderIdentity"].as_str().unwrap_or_default()), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.coordination.v1.Lease",
    updates_name_version: true,
    ..BuiltIn::PLAIN
};
