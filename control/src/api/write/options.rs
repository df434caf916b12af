//! `CreateOptions`, `UpdateOptions`, `PatchOptions` and `DeleteOptions` of the query: what may be said in them.

use serde_json::json;

use crate::{
    api::{Status, Subject, request::Call},
    field_management::manager_name,
    kinds::FieldError,
    request::{Verb, content_type::ContentType},
};

/// Refuses options that a write does not take.
pub fn check(call: &Call) -> Result<(), Status> {
    let options = match call.verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get | Verb::List | Verb::Watch | Verb::Other => return Ok(()),
    };
    let mut errors = Vec::new();
    if call.verb == Verb::Patch {
        match &call.content_type {
            ContentType::ApplyPatch if field_manager(call).is_empty() => {
                errors.push(FieldError::required("fieldManager", "is required for apply patch"));
            }
            ContentType::ApplyPatch => {}
            ContentType::JsonPatch | ContentType::MergePatch | ContentType::StrategicMergePatch => {
                if parameter(call, "force").is_some() {
                    errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
                }
            }
            // Refused for what it is.
            _ => return Ok(()),
        }
    }
    if options != "DeleteOptions" {
        errors.extend(manager_name::check(field_manager(call)));
    }
    let dry_run: Vec<&str> = values(call, "dryRun").collect();
    if dry_run.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported("dryRun", &json!(dry_run), &["All"]));
    }
    let validation = parameter(call, "fieldValidation").unwrap_or_default();
    if options != "DeleteOptions" && !matches!(validation, "" | "Ignore" | "Strict" | "Warn") {
        let supported = ["", "Ignore", "Strict", "Warn"];
        errors.push(FieldError::not_supported("fieldValidation", &json!(validation), &supported));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let reads_object = matches!(call.verb, Verb::Create | Verb::Update);
    if reads_object && matches!(call.content_type, ContentType::Other(_)) {
        // Looked at before the options are.
        return Err(Status::unsupported_media_type());
    }
    Err(Status::invalid(Subject { group: "meta.k8s.io", resource: options, name: "" }, &errors))
}

/// Whether an apply takes what others own.
pub fn force(call: &Call) -> bool {
    call.query.is_set("force")
}

fn field_manager(call: &Call) -> &str {
    parameter(call, "fieldManager").unwrap_or_default()
}

fn parameter<'a>(call: &'a Call, name: &'a str) -> Option<&'a str> {
    values(call, name).next()
}

fn values<'a>(call: &'a Call, name: &'a str) -> impl Iterator<Item = &'a str> {
    call.query.parameters.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
}
