//! `PATCH`: applies the patch to the stored object; the result is written as an update.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{
    MODIFIED, Made, ObjectUpdate, TRIES, answer, apply, change, current, from_stored, parse, to_stored,
    update::change_with_managers,
};
use crate::{
    api::{
        Api, Status, Subject,
        request::{
            Call,
            body::{self, UnreadableBody},
        },
    },
    audit::current as recorded,
    definitions::conversion,
    kinds::{FieldError, Kind, field::go_value},
    patch,
    request::content_type::ContentType,
};

/// `PATCH` of an object or subresource.
pub async fn patch(api: &Api, call: &Call, text: &[u8]) -> Result<Response, Status> {
    if call.content_type == ContentType::ApplyPatch {
        return apply(api, call, text).await;
    }
    let target = &call.target;
    // As in Kubernetes: nothing says how lists of a custom kind merge.
    if target.kind.custom.is_some() && call.content_type == ContentType::StrategicMergePatch {
        return Err(Status::unsupported_patch_type());
    }
    let instructions = instructions(&call.content_type, text)?;
    if target.kind.custom.as_ref().is_some_and(|custom| custom.webhook.is_some()) {
        return patch_converted(api, call, &instructions).await;
    }
    let place = api.place(target)?;
    let make = |old: &Value| {
        let mut base = old.clone();
        from_stored(&target.kind, &mut base);
        let new = patched(&target.kind, &call.content_type, &base, &instructions)?;
        let (mut object, empties) = rechecked(call, &base, new, &instructions)?.tell_sent();
        to_stored(&target.kind, &mut object);
        Ok(Made { object, empties })
    };
    let update = ObjectUpdate { subresource: target.subresource, make: &make };
    let outcome = match names_managers(&instructions) {
        true => change_with_managers(api, call, &place, update).await?,
        false => change(api, call, &place, update).await?,
    };
    answer(call, StatusCode::OK, &outcome).await
}

/// The same where a webhook converts: what it is asked for cannot be made within a change, so the change takes what was
/// made of one state, and is made anew from another.
async fn patch_converted(api: &Api, call: &Call, instructions: &Value) -> Result<Response, Status> {
    let target = &call.target;
    let place = api.place(target)?;
    let name = target.name.as_deref().unwrap_or_default();
    for _ in 0..TRIES {
        let stored = current(&api.store().snapshot(), &place, name)?;
        let base = conversion::from_stored(&target.kind, parse(&stored)?).await?;
        let new = patched(&target.kind, &call.content_type, &base, instructions)?;
        let value = rechecked(call, &base, new, instructions)?.tell();
        let value = conversion::to_stored(&target.kind, value, Some(&stored)).await?;
        let revision = stored.revision.to_string();
        let is_stale = AtomicBool::new(false);
        let make = |old: &Value| {
            if old["metadata"]["resourceVersion"] != revision.as_str() {
                is_stale.store(true, Ordering::Relaxed);
                return Err(Status::conflict(place.subject(name), MODIFIED));
            }
            Ok(Made::from(value.clone()))
        };
        let update = ObjectUpdate { subresource: target.subresource, make: &make };
        match change(api, call, &place, update).await {
            Ok(outcome) => return answer(call, StatusCode::OK, &outcome).await,
            Err(_) if is_stale.load(Ordering::Relaxed) => {}
            Err(status) => return Err(status),
        }
    }
    Err(Status::conflict(place.subject(name), MODIFIED))
}

/// Checks what the patch made of `base` by the schema. An object that cannot be read is held against the patch, as in
/// Kubernetes: with the whole of what it made, or for a strategic patch with the patch itself.
fn rechecked(call: &Call, base: &Value, new: Value, instructions: &Value) -> Result<body::Decoded, Status> {
    let kind = &call.target.kind;
    // A strategic patch is one of a typed object, whose type no field can change.
    let is_typed = call.content_type == ContentType::StrategicMergePatch;
    let why = match other_type(kind, &new).filter(|_| !is_typed) {
        Some(why) => why,
        None => match body::recheck(kind, new, call.query.field_validation) {
            Ok(mut decoded) => {
                if is_typed {
                    decoded.value["apiVersion"] = kind.api_version().into();
                    decoded.value["kind"] = kind.kind.as_ref().into();
                }
                return Ok(decoded);
            }
            Err(UnreadableBody::Type(error)) if is_typed => error.of_patched,
            Err(why) => why.to_string(),
        },
    };
    let shown = match call.content_type {
        ContentType::StrategicMergePatch => go_value(instructions),
        _ => patched(kind, &call.content_type, base, instructions)?.to_string(),
    };
    Err(unreadable_result(&shown, &why))
}

/// Refuses a patch of which nothing came that can be read; `shown` is what came, or the patch.
pub fn unreadable_result(shown: &str, why: &str) -> Status {
    let error = FieldError::invalid("patch", &shown.into(), why);
    Status::invalid(Subject { group: "", resource: "", name: "" }, &[error])
}

/// What is wrong with the type of a patched object, if a patch changed it.
fn other_type(kind: &Kind, new: &Value) -> Option<String> {
    let given = |field: &str| new[field].as_str().filter(|text| !text.is_empty());
    let (version, name) = (kind.api_version(), &*kind.kind);
    let (new_version, new_name) = (given("apiVersion").unwrap_or(&version), given("kind").unwrap_or(name));
    (kind.is_built_in() && (new_version != version || new_name != name))
        .then(|| format!("no kind {new_name:?} is registered for version {new_version:?}"))
}

/// Whether a patch says something of `metadata.managedFields`. To read them for every patch would take longer than the
/// rest of it.
fn names_managers(instructions: &Value) -> bool {
    match instructions {
        Value::Array(operations) => operations.iter().any(|operation| {
            ["path", "from"]
                .iter()
                .filter_map(|field| operation[*field].as_str())
                .any(|path| path.is_empty() || path == "/metadata" || path.starts_with("/metadata/managedFields"))
        }),
        patch => patch["metadata"].get("managedFields").is_some(),
    }
}

/// `current` with a patch of this type applied.
pub fn patched(
    kind: &Kind,
    content_type: &ContentType,
    current: &Value,
    instructions: &Value,
) -> Result<Value, Status> {
    match content_type {
        ContentType::JsonPatch => patch::json(kind, current, instructions),
        ContentType::MergePatch => patch::merge(kind, current, instructions),
        ContentType::StrategicMergePatch => patch::strategic(kind, current, instructions),
        _ => Err(Status::unsupported_patch_type()),
    }
}

/// Reads a patch.
pub fn instructions(content_type: &ContentType, text: &[u8]) -> Result<Value, Status> {
    match content_type {
        ContentType::JsonPatch | ContentType::MergePatch | ContentType::StrategicMergePatch => {
            let read = serde_json::from_slice(text);
            match &read {
                Ok(instructions) => recorded::request_patch(instructions),
                Err(_) => recorded::request_text(text),
            }
            read.map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))
        }
        _ => Err(Status::unsupported_patch_type()),
    }
}
