//! `PATCH`: applies the patch to the stored object; the result is written as an update.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::response::Response;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::Value;

use super::{
    MODIFIED, ObjectUpdate, TRIES, answer, apply, change, current, from_stored, parse, to_stored,
    update::change_with_managers,
};
use crate::{
    api::{
        Api, Status, Subject, patch,
        request::{Call, body},
    },
    definitions::conversion,
    kinds::{FieldError, Kind},
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
        return Err(unsupported(&ContentType::Other("application/strategic-merge-patch+json".to_owned())));
    }
    let instructions = instructions(&call.content_type, text)?;
    if target.kind.custom.as_ref().is_some_and(|custom| custom.webhook.is_some()) {
        return patch_converted(api, call, &instructions).await;
    }
    let place = api.place(target)?;
    let warned = Mutex::new(Vec::new());
    let make = |old: &Value| {
        let mut base = old.clone();
        from_stored(&target.kind, &mut base);
        let new = patched(&target.kind, &call.content_type, &base, &instructions)?;
        let body::Decoded { mut value, warnings } = rechecked(call, &base, new, &instructions)?;
        *warned.lock() = warnings;
        to_stored(&target.kind, &mut value);
        Ok(value)
    };
    let update = ObjectUpdate { subresource: target.subresource, make: &make };
    let outcome = match names_managers(&instructions) {
        true => change_with_managers(api, call, &place, update).await?,
        false => change(api, call, &place, update).await?,
    };
    answer(call, StatusCode::OK, &outcome, &warned.into_inner()).await
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
        let body::Decoded { value, warnings } = rechecked(call, &base, new, instructions)?;
        let value = conversion::to_stored(&target.kind, value, Some(&stored)).await?;
        let revision = stored.revision.to_string();
        let is_stale = AtomicBool::new(false);
        let make = |old: &Value| {
            if old["metadata"]["resourceVersion"] != revision.as_str() {
                is_stale.store(true, Ordering::Relaxed);
                return Err(Status::conflict(place.subject(name), MODIFIED));
            }
            Ok(value.clone())
        };
        let update = ObjectUpdate { subresource: target.subresource, make: &make };
        match change(api, call, &place, update).await {
            Ok(outcome) => return answer(call, StatusCode::OK, &outcome, &warnings).await,
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
    let why = match body::recheck(kind, new, call.query.field_validation) {
        Ok(decoded) => return Ok(decoded),
        Err(why) => why,
    };
    let shown = match call.content_type {
        ContentType::StrategicMergePatch => go_value(instructions),
        _ => patched(kind, &call.content_type, base, instructions)?.to_string(),
    };
    let error = FieldError::invalid("patch", &shown.into(), why.to_string());
    Err(Status::invalid(Subject { group: "", resource: "", name: "" }, &[error]))
}

/// A value as Go's `%v` writes it: `map[a:1 b:[x y]]`.
fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let fields = sorted.into_iter().map(|(key, value)| format!("{key}:{}", go_value(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        scalar => scalar.to_string(),
    }
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
        other => Err(unsupported(other)),
    }
}

/// Reads a patch.
pub fn instructions(content_type: &ContentType, text: &[u8]) -> Result<Value, Status> {
    match content_type {
        ContentType::JsonPatch | ContentType::MergePatch | ContentType::StrategicMergePatch => {
            serde_json::from_slice(text).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))
        }
        other => Err(unsupported(other)),
    }
}

fn unsupported(content_type: &ContentType) -> Status {
    let given = match content_type {
        ContentType::ApplyPatch => "application/apply-patch+yaml",
        ContentType::Json => "application/json",
        ContentType::Yaml => "application/yaml",
        ContentType::Protobuf => "application/vnd.kubernetes.protobuf",
        ContentType::Other(name) => name,
        ContentType::JsonPatch | ContentType::MergePatch | ContentType::StrategicMergePatch => "this patch",
    };
    let mut status = Status::unsupported_media_type(given);
    status.message = format!(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
         application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml (got {given})"
    );
    status
}
