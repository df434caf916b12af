//! SelfSubjectAccessReview, `kubectl auth can-i`: whether the caller may do something.

use serde_json::{Value, json};

use super::Review;
use crate::auth::{
    attributes::{Attributes, Resource},
    authorize::{self, Decision},
};

pub(super) static REVIEW: Review = Review {
    group: "authorization.k8s.io",
    kind: "SelfSubjectAccessReview",
    status: |call, review| {
        // What depends on stored objects is not allowed in general.
        let allowed = authorize::authorize(&call.identity, &attributes(&review["spec"])) == Decision::Allow;
        json!({"allowed": allowed})
    },
};

/// What the review asks about.
fn attributes(spec: &Value) -> Attributes {
    let asked = &spec["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default().to_owned();
    if !asked.is_object() {
        let asked = &spec["nonResourceAttributes"];
        let text = |field: &str| asked[field].as_str().unwrap_or_default().to_owned();
        return Attributes::Path { verb: text("verb"), path: text("path") };
    }
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    Attributes::Resource(Resource {
        verb: verbs.into_iter().find(|verb| asked["verb"] == *verb).unwrap_or("*"),
        group: text("group"),
        version: text("version"),
        namespace: text("namespace"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        node_selector: String::new(),
    })
}
