//! TokenReview: whose token this is, as a server that was shown it asks.

use serde_json::json;

use super::Review;
use crate::{
    auth::token::{API_AUDIENCE, TokenAuthenticator},
    status::Status,
};

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authentication.k8s.io",
    kind: "TokenReview",
    answer: |api, _, mut review| {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = review["spec"]["audiences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let for_us = audiences.is_empty() || audiences.iter().any(|audience| audience == API_AUDIENCE);
        let identity = TokenAuthenticator::new(api.authorizer()).identify(token).map_err(|error| error.to_status())?;
        review["status"] = match identity.filter(|_| for_us) {
            Some(user) => json!({"authenticated": true, "audiences": [API_AUDIENCE],
                "user": {"username": user.name, "groups": user.groups}}),
            None => json!({"user": {}, "error": "invalid bearer token"}),
        };
        Ok(review)
    },
};
