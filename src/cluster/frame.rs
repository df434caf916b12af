//! One object as kube's watcher carries it: plain JSON, or a Table of one row, with the metadata that the watcher
//! needs.

use std::borrow::Cow;

use http::{Request, Response, header};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{client::Body, core::DynamicResourceScope};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{ResourceType, TABLE};

/// An object, or the Table that shows it, as the server sent it.
#[derive(Clone, Debug)]
pub struct Frame {
    metadata: ObjectMeta,
    /// JSON as it came.
    pub content: Value,
}

impl Frame {
    /// Namespace and name.
    pub fn key(&self) -> (String, String) {
        (self.metadata.namespace.clone().unwrap_or_default(), self.metadata.name.clone().unwrap_or_default())
    }

    /// The object's `resourceVersion`.
    pub fn revision(&self) -> String {
        self.metadata.resource_version.clone().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let content = Value::deserialize(deserializer)?;
        let metadata = match content["kind"] == "Table" {
            true => &content["rows"][0]["object"]["metadata"],
            false => &content["metadata"],
        };
        let text = |field: &str| metadata[field].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            uid: text("uid"),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, content })
    }
}

impl kube::Resource for Frame {
    type DynamicType = ResourceType;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ResourceType) -> Cow<'_, str> {
        Cow::Borrowed(&resource.kind)
    }

    fn group(resource: &ResourceType) -> Cow<'_, str> {
        Cow::Borrowed(&resource.group)
    }

    fn version(resource: &ResourceType) -> Cow<'_, str> {
        Cow::Borrowed(&resource.version)
    }

    fn plural(resource: &ResourceType) -> Cow<'_, str> {
        Cow::Borrowed(&resource.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Sends `request` through `client`, asking for Tables; a list comes back as one whose items are Tables of one row
/// each.
pub async fn send_for_tables(client: kube::Client, mut request: Request<Body>) -> Result<Response<Body>, kube::Error> {
    request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static(TABLE));
    let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let response = client.send(request).await?;
    if is_watch || !response.status().is_success() {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let list = body.collect().await?.to_bytes();
    let mut list: Value = serde_json::from_slice(&list).map_err(kube::Error::SerdeError)?;
    if list["kind"] == "Table" {
        list["items"] = Value::Array(single_rows(&mut list));
    }
    let list = serde_json::to_vec(&list).map_err(kube::Error::SerdeError)?;
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(list)))
}

/// Cuts a Table into Tables of one row each; only the first declares the columns, as in a watch.
fn single_rows(table: &mut Value) -> Vec<Value> {
    let mut columns = table["columnDefinitions"].take();
    let Value::Array(rows) = table["rows"].take() else { return Vec::new() };
    rows.into_iter().map(|row| json!({"kind": "Table", "columnDefinitions": columns.take(), "rows": [row]})).collect()
}
