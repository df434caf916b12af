//! Versions of Deployment and ReplicaSet that Kubernetes served before 1.16 and that people still have in their files. They are
//! accepted, converted to `apps/v1`, stored as that, and answered in the version that was asked for.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::convert;

use super::{Kind, Storage, StoredAs, Subresource, deployment, replica_set};

pub static APPS_V1BETA2_DEPLOYMENT: Kind = deployment_kind(
    "apps",
    "v1beta2",
    "io.k8s.api.apps.v1beta2.Deployment",
    &StoredAs {
        kind: &deployment::KIND,
        to_stored: convert::deployment_to_v1,
        from_stored: |o| convert::from_v1(o, "apps/v1beta2"),
        warning: Some("apps/v1beta2 Deployment is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 Deployment"),
    },
);

pub static APPS_V1BETA1_DEPLOYMENT: Kind = deployment_kind(
    "apps",
    "v1beta1",
    "io.k8s.api.apps.v1beta1.Deployment",
    &StoredAs {
        kind: &deployment::KIND,
        to_stored: convert::deployment_to_v1,
        from_stored: |o| convert::from_v1(o, "apps/v1beta1"),
        warning: Some("apps/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment"),
    },
);

pub static EXTENSIONS_V1BETA1_DEPLOYMENT: Kind = deployment_kind(
    "extensions",
    "v1beta1",
    "io.k8s.api.extensions.v1beta1.Deployment",
    &StoredAs {
        kind: &deployment::KIND,
        to_stored: convert::deployment_to_v1,
        from_stored: |o| convert::from_v1(o, "extensions/v1beta1"),
        warning: Some(
            "extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment",
        ),
    },
);

pub static APPS_V1BETA2_REPLICA_SET: Kind = replica_set_kind(
    "apps",
    "v1beta2",
    "io.k8s.api.apps.v1beta2.ReplicaSet",
    &StoredAs {
        kind: &replica_set::KIND,
        to_stored: convert::replica_set_to_v1,
        from_stored: |o| convert::from_v1(o, "apps/v1beta2"),
        warning: Some("apps/v1beta2 ReplicaSet is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 ReplicaSet"),
    },
);

pub static EXTENSIONS_V1BETA1_REPLICA_SET: Kind = replica_set_kind(
    "extensions",
    "v1beta1",
    "io.k8s.api.extensions.v1beta1.ReplicaSet",
    &StoredAs {
        kind: &replica_set::KIND,
        to_stored: convert::replica_set_to_v1,
        from_stored: |o| convert::from_v1(o, "extensions/v1beta1"),
        warning: Some(
            "extensions/v1beta1 ReplicaSet is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 ReplicaSet",
        ),
    },
);

const SUBRESOURCES: &[Subresource] = &[Subresource::Scale, Subresource::Status];

/// Without short names and categories, so that `kubectl get deploy` and `get all` mean `apps/v1` alone.
const fn deployment_kind(
    group: &'static str,
    version: &'static str,
    schema: &'static str,
    stored: &'static StoredAs,
) -> Kind {
    Kind {
        group,
        version,
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &[],
        categories: &[],
        namespaced: true,
        subresources: SUBRESOURCES,
        storage: Storage::As(stored),
        decode: convert::decode_deployment,
        default: nothing,
        validate: |_, _| Vec::new(),
        prepare: |_, _| {},
        columns: deployment::COLUMNS,
        cells: deployment::cells,
        selectable: |_| BTreeMap::new(),
        schema,
    }
}

const fn replica_set_kind(
    group: &'static str,
    version: &'static str,
    schema: &'static str,
    stored: &'static StoredAs,
) -> Kind {
    Kind {
        group,
        version,
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &[],
        categories: &[],
        namespaced: true,
        subresources: SUBRESOURCES,
        storage: Storage::As(stored),
        decode: convert::decode_replica_set,
        default: nothing,
        validate: |_, _| Vec::new(),
        prepare: |_, _| {},
        columns: replica_set::COLUMNS,
        cells: replica_set::cells,
        selectable: replica_set::selectable,
        schema,
    }
}

/// Conversion to the stored kind comes first, and the stored kind's defaults then hold.
fn nothing(_: &mut Value) {}
