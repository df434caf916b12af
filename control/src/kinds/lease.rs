//! Lease: who holds something, and when they last said so.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;

use super::{Cell, Column, Kind, Storage, decode::decode};

pub static KIND: Kind = Kind {
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
    decode: decode::<Lease>,
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare: |_, _| {},
    columns: &[Column::name(), Column::text("Holder", "Identity of the holder."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::text(o["spec"]["holderIdentity"].as_str().unwrap_or_default()), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.coordination.v1.Lease",
};
