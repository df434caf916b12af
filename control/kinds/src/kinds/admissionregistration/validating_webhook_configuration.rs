//! ValidatingWebhookConfiguration: webhooks that may refuse a write.

use super::webhook;
use crate::kinds::BuiltIn;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    default: |object| webhook::default(object, false),
    validate: |new, old| webhook::validate(new, old, false),
    schema: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    ..webhook::CONFIGURATION
};
