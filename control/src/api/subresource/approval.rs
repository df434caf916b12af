//! `/approval` of a CertificateSigningRequest: whether it is to be signed.

use super::{Effect, PartWrite, Responder, Subresource, whole};
use crate::kinds::certificate_signing_request::approval;

/// The declaration of this subresource.
pub static APPROVAL: Subresource = Subresource {
    segment: "approval",
    verbs: &["get", "patch", "update"],
    effect: Effect::Part(&PartWrite {
        prepare: approval::prepare,
        validate: |new, old, _| approval::validate(new, old),
    }),
    responder: Responder::Api(whole),
    ..Subresource::PLAIN
};
