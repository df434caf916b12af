//! MutatingWebhookConfiguration: webhooks that may change an object before it is stored.

use super::webhook;
use crate::kinds::BuiltIn;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    default: |object| webhook::default(object, true),
    validate: |new, old| webhook::validate(new, old, true),
    schema: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    ..webhook::CONFIGURATION
};
