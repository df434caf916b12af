//! The kinds by which somebody asks who a caller is and what they may do: `kubectl auth whoami` and `kubectl auth
//! can-i`. Nothing is stored; who answers is `api::review`, not this file.

use super::{BuiltIn, Storage};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// What reviews have in common.
const REVIEW: BuiltIn = BuiltIn { namespaced: false, storage: Storage::Virtual, ..BuiltIn::PLAIN };

/// The declaration of SelfSubjectReview: who the caller is.
pub static SELF_SUBJECT_REVIEW: BuiltIn = BuiltIn {
    group: AUTHENTICATION,
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    schema: "io.k8s.api.authentication.v1.SelfSubjectReview",
    ..REVIEW
};

/// The declaration of TokenReview: whose token this is.
pub static TOKEN_REVIEW: BuiltIn = BuiltIn {
    group: AUTHENTICATION,
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    schema: "io.k8s.api.authentication.v1.TokenReview",
    ..REVIEW
};

/// The declaration of SelfSubjectAccessReview: whether the caller may do something.
pub static SELF_SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    group: AUTHORIZATION,
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    schema: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    ..REVIEW
};

/// The declaration of SelfSubjectRulesReview: what the caller may do in a namespace.
pub static SELF_SUBJECT_RULES_REVIEW: BuiltIn = BuiltIn {
    group: AUTHORIZATION,
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    schema: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    ..REVIEW
};

/// The declaration of SubjectAccessReview: whether anybody may do something.
pub static SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    group: AUTHORIZATION,
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    schema: "io.k8s.api.authorization.v1.SubjectAccessReview",
    ..REVIEW
};

/// The declaration of LocalSubjectAccessReview: the same within one namespace, for who may ask only there.
pub static LOCAL_SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    group: AUTHORIZATION,
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    namespaced: true,
    schema: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    ..REVIEW
};
