//! LocalSubjectAccessReview: whether anybody may do something in one namespace.

use serde_json::{Value, json};

use super::{Review, access};
use crate::{
    api::{Api, request::Call},
    kinds::FieldError,
    status::Status,
};

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authorization.k8s.io",
    kind: "LocalSubjectAccessReview",
    answer: |api, call, review| Box::pin(answer(api, call, review)),
};

async fn answer(api: &Api, call: &Call, mut review: Value) -> Result<Value, Status> {
    let namespace = call.target.namespace.clone().unwrap_or_default();
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    let metadata = &mut review["metadata"];
    if metadata["namespace"].as_str().is_none_or(str::is_empty) {
        metadata["namespace"] = namespace.as_str().into();
    }
    let mut errors = access::validate(&review, true);
    errors.extend(access::metadata(&review, true));
    errors.extend(of_namespace(&review));
    access::must_be_valid(call, &errors)?;
    if review["metadata"]["namespace"] != namespace.as_str() {
        let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
        return Err(Status::bad_request(why));
    }
    access::answer(api, &access::user_of(&review), review).await
}

fn of_namespace(review: &Value) -> Vec<FieldError> {
    let (resource, path) = (&review["spec"]["resourceAttributes"], &review["spec"]["nonResourceAttributes"]);
    let mut errors = Vec::new();
    if resource.is_object() && resource["namespace"] != review["metadata"]["namespace"] {
        let shown = json!(resource["namespace"].as_str().unwrap_or_default());
        let why = "must match metadata.namespace";
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", &shown, why));
    }
    if !path.is_null() {
        let shown = json!({"Path": path["path"], "Verb": path["verb"]});
        errors.push(FieldError::invalid("spec.nonResourceAttributes", &shown, "disallowed on this kind of request"));
    }
    errors
}
