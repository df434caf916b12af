//! Binding: assigns the pod of its name to a node. It is not stored: `api::subresource` carries it out.

use super::{BuiltIn, Storage};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    kind: "Binding",
    plural: "bindings",
    singular: "binding",
    storage: Storage::Virtual,
    schema: "io.k8s.api.core.v1.Binding",
    ..BuiltIn::PLAIN
};
