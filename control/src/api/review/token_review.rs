//! TokenReview: whose token this is, as a server that was shown it asks.

use serde_json::{Value, json};

use super::Review;
use crate::{
    auth::{
        token::{Identified, TokenAuthenticator},
        user_info::user_info,
    },
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
        let tokens = TokenAuthenticator::new(api.authorizer());
        let asked = review["spec"]["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut audiences: Vec<String> = asked.map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences.push(tokens.audience().to_owned());
        }
        let found = tokens.identify_for(token, &audiences).map_err(|error| error.to_status())?;
        review["status"] = match found {
            Ok(Identified { identity, audiences }) => {
                json!({"authenticated": true, "user": user_info(&identity), "audiences": audiences})
            }
            Err(Some(why)) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
            Err(None) => json!({"user": {}, "error": "invalid bearer token"}),
        };
        Ok(review)
    },
};
