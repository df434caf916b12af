//! Role: what may be done in one namespace.

use super::{GROUP, policy_rule};
use crate::kinds::{BuiltIn, Cell, Column, names};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "Role",
    plural: "roles",
    singular: "role",
    object_name: names::path_segment,
    validate: |new, _| policy_rule::validate(new, true),
    columns: &[Column::name(), Column::created_at()],
    cells: |object| vec![Cell::name(object), Cell::created_at(object)],
    schema: "io.k8s.api.rbac.v1.Role",
    creates_on_update: true,
    ..BuiltIn::PLAIN
};
