//! One object, in the form the client takes.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;

use super::{show, show_metadata, shown, table};
use crate::{
    api::{Api, Status, Subject, request::Call, response},
    request::{accept::ResponseForm, query::Version},
    store::Object,
};

/// `GET` of one object.
pub fn get(api: &Api, call: &Call) -> Result<Response, Status> {
    let place = api.place(&call.target)?;
    let snapshot = api.store().snapshot();
    if let Some(Version::Of(asked)) = call.query.resource_version
        && asked > snapshot.revision
    {
        return Err(Status::version_too_large(asked, snapshot.revision));
    }
    let object = snapshot.get(&place.resource, &place.key).ok_or_else(|| {
        let name = call.target.name.as_deref().unwrap_or_default();
        Status::not_found(Subject { group: &place.kind.group, resource: &place.kind.plural, name })
    })?;
    Ok(response::json(StatusCode::OK, render(call, object)))
}

/// The text of an object that a request answers with.
pub fn render(call: &Call, object: &Object) -> Bytes {
    let kind = &call.target.kind;
    match call.form {
        ResponseForm::Object => shown(kind, object),
        ResponseForm::PartialMetadata => {
            let mut text = Vec::new();
            show_metadata(object, &mut text);
            text.into()
        }
        ResponseForm::Table => {
            let mut text = Vec::new();
            let revision = object.revision.to_string();
            table::begin(&mut text, Some(kind), &format!(r#"{{"resourceVersion":"{revision}"}}"#));
            table::row(&mut text, object, call.query.include_object, jiff::Timestamp::now(), |object, out| {
                show(kind, object, out);
            });
            table::end(&mut text);
            text.into()
        }
    }
}
