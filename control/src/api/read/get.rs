//! One object, in the form the client takes.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;

use super::{Managers, go_type, options, show, show_metadata, shown, table};
use crate::{
    api::{Api, Status, Subject, request::Call, response},
    definitions::conversion,
    request::accept::ResponseForm,
    store::Object,
};

/// `GET` of one object.
pub async fn get(api: &Api, call: &Call) -> Result<Response, Status> {
    check_form(call)?;
    let place = api.place(&call.target)?;
    let snapshot = options::not_older_than(api.store(), &call.query).await?;
    let object = snapshot.get(&place.resource, &place.key).ok_or_else(|| {
        let name = call.target.name.as_deref().unwrap_or_default();
        Status::not_found(Subject { group: &place.kind.group, resource: &place.kind.plural, name })
    })?;
    let text = conversion::read(&call.target.kind, || render(call, object)).await?;
    Ok(response::json(StatusCode::OK, text))
}

/// `GET` of one object that was made for the request.
pub fn get_computed(call: &Call, object: &Object) -> Result<Response, Status> {
    check_form(call)?;
    Ok(response::json(StatusCode::OK, render(call, object)))
}

fn check_form(call: &Call) -> Result<(), Status> {
    if let ResponseForm::PartialMetadataList(_) = call.accepted.form {
        return Err(Status::wrong_form("PartialObjectMetadataList", &go_type(&call.target.kind, ""), false));
    }
    options::check_table(call)
}

/// The JSON text of an object that a request answers with.
pub fn render(call: &Call, object: &Object) -> Bytes {
    let (kind, managers) = (&call.target.kind, Managers::of(call));
    match call.accepted.form {
        ResponseForm::Object => shown(kind, object, managers),
        ResponseForm::PartialMetadata(version) | ResponseForm::PartialMetadataList(version) => {
            let mut text = Vec::new();
            show_metadata(object, version, managers, &mut text);
            text.into()
        }
        ResponseForm::Table(version) => {
            let mut text = Vec::new();
            let revision = object.revision.to_string();
            table::begin(&mut text, Some(kind), version, &format!(r#"{{"resourceVersion":"{revision}"}}"#));
            let rows = table::Rows { include: call.query.include_object, version, now: jiff::Timestamp::now() };
            rows.row(&mut text, object, |object, out| show(kind, object, managers, out));
            table::end(&mut text);
            text.into()
        }
    }
}
