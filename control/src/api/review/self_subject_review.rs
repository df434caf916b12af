//! SelfSubjectReview, `kubectl auth whoami`: who the caller is to the server.

use serde_json::json;

use super::Review;
use crate::auth::user_info::user_info;

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authentication.k8s.io",
    kind: "SelfSubjectReview",
    answer: |_, call, mut review| {
        review["status"] = json!({"userInfo": user_info(&call.identity)});
        Box::pin(async { Ok(review) })
    },
};
