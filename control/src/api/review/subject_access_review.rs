//! SubjectAccessReview, `kubectl auth can-i --as`: whether anybody may do something.

use super::{Review, access};

/// The declaration of this review.
pub(super) static REVIEW: Review = Review {
    group: "authorization.k8s.io",
    kind: "SubjectAccessReview",
    answer: |api, call, review| {
        Box::pin(async move {
            let mut errors = access::validate(&review, true);
            errors.extend(access::metadata(&review, false));
            access::must_be_valid(call, &errors)?;
            access::answer(api, &access::user_of(&review), review).await
        })
    },
};
