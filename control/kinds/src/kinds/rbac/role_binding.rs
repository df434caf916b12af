//! RoleBinding: who has a role in one namespace.

use super::{GROUP, subject};
use crate::kinds::{BuiltIn, names};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    object_name: names::path_segment,
    default: subject::default,
    validate: |new, old| subject::validate(new, old, &["Role", "ClusterRole"], true),
    columns: subject::COLUMNS,
    cells: subject::cells,
    schema: "io.k8s.api.rbac.v1.RoleBinding",
    creates_on_update: true,
    ..BuiltIn::PLAIN
};
