//! SelfSubjectAccessReview, `kubectl auth can-i`: whether the caller may do something.

use super::{Review, access};

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authorization.k8s.io",
    kind: "SelfSubjectAccessReview",
    answer: |api, call, review| {
        Box::pin(async move {
            let mut errors = access::validate(&review, false);
            errors.extend(access::metadata(&review, false));
            access::must_be_valid(call, &errors)?;
            access::answer(api, &call.identity, review).await
        })
    },
};
