//! ClusterRoleBinding: who has a ClusterRole in the whole cluster.

use super::{GROUP, subject};
use crate::kinds::{BuiltIn, names};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    object_name: names::path_segment,
    default: subject::default,
    validate: |new, old| subject::validate(new, old, &["ClusterRole"], false),
    columns: subject::COLUMNS,
    cells: subject::cells,
    schema: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    creates_on_update: true,
    ..BuiltIn::PLAIN
};
