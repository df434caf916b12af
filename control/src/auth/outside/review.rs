//! A review that is sent to a webhook, and its answer: `TokenReview` and `SubjectAccessReview` alike.
//!
//! Source: `k8s.io/apiserver/pkg/util/webhook`.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::webhook::{CallError, KubeconfigCallError, KubeconfigClient};

/// The version of the API that a webhook is asked in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutsideReviewVersion {
    /// Today's.
    V1,
    /// The one before, which kube-apiserver's flags have by default.
    #[default]
    V1beta1,
}

/// A version that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("supported versions are v1 and v1beta1")]
pub struct OutsideReviewVersionError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutsideReviewError {
    /// The webhook was not reached, or did not answer with a review.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It answered with JSON that is no object.
    #[error("the webhook answered with no object to a {expected}")]
    Shape {
        /// What was asked.
        expected: &'static str,
    },
    /// It answered with something else.
    #[error("the webhook answered with {kind:?} of {version:?} to a {expected}")]
    Kind {
        /// What was asked.
        expected: &'static str,
        /// Of the answer.
        kind: String,
        /// Of the answer.
        version: String,
    },
}

impl OutsideReviewError {
    /// Whether the webhook said nothing at all. A refusal, or an answer that cannot be read, may be due to what was
    /// asked, and so to who asks.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Call(CallError::Timeout { .. } | CallError::Request { .. }))
    }
}

/// How often a question is sent at most.
const ATTEMPTS: u32 = 5;
/// After the first attempt.
const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
/// By how much each pause is longer than the one before.
const FACTOR: f64 = 1.5;
/// Up to which part a pause is longer than it has to be.
const JITTER: f64 = 0.2;

impl OutsideReviewVersion {
    /// As `apiVersion` ends.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1beta1 => "v1beta1",
        }
    }
}

impl std::str::FromStr for OutsideReviewVersion {
    type Err = OutsideReviewVersionError;

    fn from_str(text: &str) -> Result<Self, OutsideReviewVersionError> {
        match text {
            "v1" => Ok(Self::V1),
            "v1beta1" => Ok(Self::V1beta1),
            _ => Err(OutsideReviewVersionError),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewKind {
    /// Whose token it is.
    Token,
    /// Whether somebody may do something.
    SubjectAccess,
}

impl ReviewKind {
    fn kind(self) -> &'static str {
        match self {
            Self::Token => "TokenReview",
            Self::SubjectAccess => "SubjectAccessReview",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Token => "authentication.k8s.io",
            Self::SubjectAccess => "authorization.k8s.io",
        }
    }

    /// As Go writes one that is not answered yet.
    fn empty_status(self) -> Value {
        match self {
            Self::Token => json!({"user": {}}),
            Self::SubjectAccess => json!({"allowed": false}),
        }
    }

    /// Sends the review, again where that may help, and answers with its status. Each attempt may last so long.
    pub async fn ask(
        self,
        client: &KubeconfigClient,
        version: OutsideReviewVersion,
        spec: &Value,
        timeout: Duration,
    ) -> Result<Value, OutsideReviewError> {
        let version = format!("{}/{}", self.group(), version.as_str());
        let body = json!({"kind": self.kind(), "apiVersion": version, "metadata": {"creationTimestamp": null},
            "spec": spec, "status": self.empty_status()});
        let body = Bytes::from(body.to_string());
        let (mut pause, mut attempt) = (INITIAL_BACKOFF, 1_u32);
        let answer = loop {
            match client.post(body.clone(), timeout).await {
                Ok(answer) => break answer,
                Err(KubeconfigCallError { is_transient: true, error }) if attempt < ATTEMPTS => {
                    // Nothing else of the error: it may repeat a token.
                    let code = if let CallError::Refused { code, .. } = error { code } else { 0 };
                    tracing::debug!(attempt, code, kind = self.kind(), "a review is sent again");
                }
                Err(KubeconfigCallError { error, .. }) => return Err(error.into()),
            }
            attempt = attempt.saturating_add(1);
            tokio::time::sleep(times(pause, 1.0 + JITTER * rand::random::<f64>())).await;
            pause = times(pause, FACTOR);
        };
        self.status(&version, answer)
    }

    /// The status of an answer, null where it has none. The answer may be any JSON.
    fn status(self, version: &str, answer: Value) -> Result<Value, OutsideReviewError> {
        let expected = self.kind();
        let Value::Object(mut answer) = answer else { return Err(OutsideReviewError::Shape { expected }) };
        let said = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, found) = (said("kind"), said("apiVersion"));
        if !kind.is_empty() && kind != expected || !found.is_empty() && found != version {
            return Err(OutsideReviewError::Kind { expected, kind, version: found });
        }
        Ok(answer.remove("status").unwrap_or_default())
    }
}

fn times(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn json_value() -> impl Strategy<Value = Value> {
        let text = select(&["kind", "apiVersion", "status", "TokenReview", "authentication.k8s.io/v1", "x"][..]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, move |inner| {
            let fields = vec((text.clone().prop_map(str::to_owned), inner.clone()), 0..4);
            prop_oneof![
                vec(inner, 0..4).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_a_review_or_refused(answer in json_value()) {
            const VERSION: &str = "authentication.k8s.io/v1";
            let status = answer.get("status").cloned().unwrap_or_default();
            let is_object = answer.is_object();
            match ReviewKind::Token.status(VERSION, answer) {
                Ok(found) => prop_assert_eq!(found, status),
                Err(error) => prop_assert_eq!(is_object, matches!(error, OutsideReviewError::Kind { .. })),
            }
        }
    }

    #[test]
    fn what_is_no_object_is_no_review() {
        for answer in [json!([]), json!("x"), json!(1), Value::Null] {
            let refused = ReviewKind::Token.status("authentication.k8s.io/v1", answer).unwrap_err();
            assert_eq!(refused.to_string(), "the webhook answered with no object to a TokenReview");
        }
    }
}
