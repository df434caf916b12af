//! Versions of Deployment and ReplicaSet that Kubernetes served before 1.16 and that people still have in their files.
//! They are accepted, converted to `apps/v1`, stored as that, and answered in the version that was asked for.

mod conversion;

use super::{BuiltIn, BuiltInAs, Deprecation, Storage, deployment, replica_set};

/// `apps/v1beta2` Deployment.
pub static APPS_V1BETA2_DEPLOYMENT: BuiltIn = BuiltIn {
    version: "v1beta2",
    schema: "io.k8s.api.apps.v1beta2.Deployment",
    ..earlier(&BuiltInAs { deprecation: since("v1.9+"), ..DEPLOYMENT })
};

/// `apps/v1beta1` Deployment.
pub static APPS_V1BETA1_DEPLOYMENT: BuiltIn = BuiltIn {
    version: "v1beta1",
    schema: "io.k8s.api.apps.v1beta1.Deployment",
    ..earlier(&BuiltInAs { deprecation: since("v1.8+"), ..DEPLOYMENT })
};

/// `extensions/v1beta1` Deployment.
pub static EXTENSIONS_V1BETA1_DEPLOYMENT: BuiltIn = BuiltIn {
    group: "extensions",
    version: "v1beta1",
    schema: "io.k8s.api.extensions.v1beta1.Deployment",
    ..earlier(&BuiltInAs { deprecation: since("v1.8+"), ..DEPLOYMENT })
};

/// `apps/v1beta2` ReplicaSet.
pub static APPS_V1BETA2_REPLICA_SET: BuiltIn = BuiltIn {
    version: "v1beta2",
    schema: "io.k8s.api.apps.v1beta2.ReplicaSet",
    ..earlier(&BuiltInAs { deprecation: since("v1.9+"), ..REPLICA_SET })
};

/// `extensions/v1beta1` ReplicaSet.
pub static EXTENSIONS_V1BETA1_REPLICA_SET: BuiltIn = BuiltIn {
    group: "extensions",
    version: "v1beta1",
    schema: "io.k8s.api.extensions.v1beta1.ReplicaSet",
    ..earlier(&BuiltInAs { deprecation: since("v1.8+"), ..REPLICA_SET })
};

const DEPLOYMENT: BuiltInAs = BuiltInAs {
    kind: &deployment::KIND,
    to_stored: conversion::deployment_to_v1,
    from_stored: conversion::from_v1,
    deprecation: None,
};

const REPLICA_SET: BuiltInAs =
    BuiltInAs { kind: &replica_set::KIND, to_stored: conversion::replica_set_to_v1, ..DEPLOYMENT };

const fn since(deprecated: &'static str) -> Option<Deprecation> {
    Some(Deprecation { since: deprecated, unavailable: "v1.16+" })
}

/// An earlier version of `stored`'s kind, which says its own group, version and schema.
///
/// Without short names and categories, so that `kubectl get deploy` and `get all` mean `apps/v1` alone. Conversion
/// comes first, and the stored kind's defaults and validation then hold: there are none here.
const fn earlier(stored: &'static BuiltInAs) -> BuiltIn {
    BuiltIn {
        short_names: &[],
        categories: &[],
        storage: Storage::As(stored),
        default: |_| {},
        validate: |_, _| Vec::new(),
        prepare: |_, _| {},
        prepare_status: |_, _| {},
        ..*stored.kind
    }
}
