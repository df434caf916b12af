//! TokenReview: whose token this is, as a server that was shown it asks.

use serde_json::{Value, json};

use super::Review;
use crate::{
    api::{Api, request::Call},
    auth::{
        authenticate::{TokenFailure, no_place},
        token::Identified,
        user_info::user_info,
    },
    status::Status,
};

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authentication.k8s.io",
    kind: "TokenReview",
    answer: |api, call, review| Box::pin(answer(api, call, review)),
};

async fn answer(api: &Api, call: &Call, mut review: Value) -> Result<Value, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let authenticator = api.authenticator();
    let asked = review["spec"]["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut audiences: Vec<String> = asked.map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(authenticator.audience().to_owned());
    }
    let found = authenticator.review(&call.identity, token, &audiences).await.map_err(|error| error.to_status())?;
    review["status"] = match found {
        Ok(Identified { identity, audiences }) => {
            json!({"authenticated": true, "user": user_info(&identity), "audiences": audiences})
        }
        Err(failures) => match no_place(&failures) {
            // Nothing is known of the token: were it called bad, the other server would refuse its user.
            Some(full) => return Err(full.to_status()),
            None => json!({"user": {}, "error": words(&failures)}),
        },
    };
    Ok(review)
}

/// As Kubernetes shows several errors; each once.
fn words(failures: &[TokenFailure]) -> String {
    let mut all = vec!["invalid bearer token".to_owned()];
    for failure in failures.iter().map(ToString::to_string) {
        if !all.contains(&failure) {
            all.push(failure);
        }
    }
    match all.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
