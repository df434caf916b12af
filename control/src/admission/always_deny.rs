//! AlwaysDeny: nothing is created, changed, deleted or connected to.
//!
//! It comes after everything that may change an object, and sees all that webhooks would see: see
//! [`super::Admission::ask_to_mutate`].
//!
//! Source: `plugin/pkg/admission/deny`, whose words these are.

use serde_json::Value;

use super::attributes::Attributes;
use crate::{
    kinds::reading::text,
    status::{Status, Subject},
};

/// The refusal of a request about this object.
pub fn refusal(attributes: &Attributes<'_>, object: &Value) -> Status {
    // No name is made for what is not let in.
    let metadata = &object["metadata"];
    let names = [attributes.name, text(metadata, "name"), text(metadata, "generateName"), "Unknown"];
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    Status::forbidden(Subject { name, ..attributes.subject() }, "admission control is denying all modifications")
}
