//! The kinds by which a caller asks about itself: `kubectl auth whoami` and `kubectl auth can-i`. Nothing is stored;
//! who answers is the authoriser, not this file.

use std::collections::BTreeMap;

use super::{BuiltIn, Storage};

/// The declaration of SelfSubjectReview.
pub static SELF_SUBJECT_REVIEW: BuiltIn = BuiltIn {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    short_names: &[],
    categories: &[],
    namespaced: false,
    subresources: &[],
    storage: Storage::Virtual,
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare: |_, _| {},
    columns: &[],
    cells: |_| Vec::new(),
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.authentication.v1.SelfSubjectReview",
    ..BuiltIn::PLAIN
};

/// The declaration of SelfSubjectAccessReview.
pub static SELF_SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    group: "authorization.k8s.io",
    version: "v1",
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    short_names: &[],
    categories: &[],
    namespaced: false,
    subresources: &[],
    storage: Storage::Virtual,
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare: |_, _| {},
    columns: &[],
    cells: |_| Vec::new(),
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    ..BuiltIn::PLAIN
};
