//! SelfSubjectAccessReview, `kubectl auth can-i`: whether the caller may do something.

use serde_json::{Value, json};

use super::Review;
use crate::{
    auth::{
        attributes::{Attributes, Resource},
        authorize::{self, Decision},
    },
    request::selector::FieldSelector,
    status::Status,
};

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authorization.k8s.io",
    kind: "SelfSubjectAccessReview",
    status: |call, review| {
        let raw = &review["spec"]["resourceAttributes"]["fieldSelector"]["rawSelector"];
        let fields = raw.as_str().unwrap_or_default().parse::<FieldSelector>();
        let fields = fields.map_err(|error| Status::bad_request(error.to_string()))?;
        // What depends on stored objects is not allowed in general.
        let attributes = attributes(&review["spec"], &fields);
        let allowed = authorize::authorize(&call.identity, &attributes) == Decision::Allow;
        Ok(json!({"allowed": allowed}))
    },
};

/// What the review asks about; `fields` is its field selector.
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
