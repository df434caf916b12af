//! Kinds by which a caller asks about itself. They are answered from the request's identity; nothing is stored.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    api::{
        Status,
        request::{Call, body},
        response,
    },
    auth::{
        attributes::{Attributes, Resource},
        authorize::{self, Decision},
    },
    request::selector::FieldSelector,
};

pub fn create(call: &Call, text: &[u8]) -> Result<Response, Status> {
    let kind = call.target.kind;
    let body::Decoded { mut value, warnings } =
        body::object(kind, &call.content_type, text, call.query.field_validation)?;
    match kind.kind {
        "SelfSubjectReview" => {
            let identity = &call.identity;
            value["status"] = json!({"userInfo": {"username": identity.name, "groups": identity.groups}});
        }
        _ => {
            let raw = &value["spec"]["resourceAttributes"]["fieldSelector"]["rawSelector"];
            let fields: FieldSelector = raw.as_str().unwrap_or_default().parse().map_err(Status::bad_request)?;
            let attributes = attributes(&value["spec"], &fields);
            // What depends on stored objects is not allowed in general.
            let allowed = authorize::authorize(&call.identity, &attributes) == Decision::Allow;
            value["status"] = json!({"allowed": allowed});
        }
    }
    Ok(response::warn(response::json(StatusCode::CREATED, value.to_string()), &warnings))
}

/// What a SelfSubjectAccessReview asks about; `fields` is its field selector.
fn attributes<'a>(spec: &'a Value, fields: &'a FieldSelector) -> Attributes<'a> {
    let asked = &spec["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default();
    if !asked.is_object() {
        let asked = &spec["nonResourceAttributes"];
        let text = |field: &str| asked[field].as_str().unwrap_or_default();
        return Attributes::Path { verb: text("verb").to_ascii_lowercase(), path: text("path") };
    }
    Attributes::Resource(Resource {
        verb: text("verb"),
        group: text("group"),
        version: text("version"),
        namespace: text("namespace"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        fields: Some(fields),
    })
}
