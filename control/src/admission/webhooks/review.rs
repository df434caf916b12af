//! AdmissionReview: what a webhook is asked, and what it answers.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/request`.

use base64::{DecodeError, Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// What is wrong with an answer. The words are those of Kubernetes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    #[error("webhook response was absent")]
    NoResponse,
    #[error("response.patch is not a string")]
    PatchType,
    #[error("cannot decode response.patch: {0}")]
    Patch(DecodeError),
    /// It answers something else.
    #[error("expected response.uid={asked:?}, got {found:?}")]
    Uid { asked: String, found: String },
    /// It is something else.
    #[error("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {api_version}, Kind={kind}")]
    Kind { api_version: String, kind: String },
    #[error("validating webhook may not return response.patch")]
    ValidatingPatch,
    #[error("validating webhook may not return response.patchType")]
    ValidatingPatchType,
    #[error("webhook returned response.patch but not response.patchType")]
    NoPatchType,
    #[error("webhook returned response.patchType but not response.patch")]
    NoPatch,
    #[error("webhook returned invalid response.patchType of \"\"")]
    EmptyPatchType,
}

/// The version of AdmissionReview that a webhook takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewVersion {
    V1,
    V1Beta1,
}

/// What a webhook answered.
#[derive(Debug, PartialEq)]
pub struct ReviewAnswer {
    pub allowed: bool,
    /// A `Status`; null where it gives none.
    pub status: Value,
    pub warnings: Vec<String>,
    /// Key and value.
    pub audit_annotations: Vec<(String, String)>,
    /// Text of a JSON patch.
    pub patch: Option<Vec<u8>>,
    /// `JSONPatch`, where there is a patch.
    pub patch_type: String,
}

impl ReviewVersion {
    /// By its name in `admissionReviewVersions`.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// The text of a review. `request` is all of it but its uid and the objects.
pub fn request(version: ReviewVersion, uid: &str, mut request: Value, object: &Value, old: &Value) -> String {
    request["uid"] = uid.into();
    request["object"] = object.clone();
    request["oldObject"] = old.clone();
    json!({"kind": "AdmissionReview", "apiVersion": version.api_version(), "request": request}).to_string()
}

/// Reads an answer to the review `uid`.
pub fn read(version: ReviewVersion, uid: &str, answer: &Value, mutating: bool) -> Result<ReviewAnswer, ReviewError> {
    let response = &answer["response"];
    if !response.is_object() {
        return Err(ReviewError::NoResponse);
    }
    let patch = match &response["patch"] {
        Value::Null => Vec::new(),
        Value::String(text) => BASE64_STANDARD.decode(text).map_err(ReviewError::Patch)?,
        _ => return Err(ReviewError::PatchType),
    };
    let patch_type = response["patchType"].as_str();
    match version {
        ReviewVersion::V1 => {
            check(uid, answer)?;
            check_patch(patch.is_empty(), patch_type, mutating)?;
        }
        // Neither was checked in that version; its patches have one type.
        ReviewVersion::V1Beta1 => {}
    }
    let patch_type = match version {
        ReviewVersion::V1 => patch_type.unwrap_or_default(),
        ReviewVersion::V1Beta1 => "JSONPatch",
    };
    let texts = response["warnings"].as_array().into_iter().flatten();
    let notes = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(ReviewAnswer {
        allowed: response["allowed"] == true,
        status: response["status"].clone(),
        warnings: texts.filter_map(Value::as_str).map(str::to_owned).collect(),
        audit_annotations: notes.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        patch: (mutating && !patch.is_empty()).then_some(patch),
        patch_type: patch_type.to_owned(),
    })
}

fn check(uid: &str, answer: &Value) -> Result<(), ReviewError> {
    let found = answer["response"]["uid"].as_str().unwrap_or_default();
    if found != uid {
        return Err(ReviewError::Uid { asked: uid.to_owned(), found: found.to_owned() });
    }
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        let api_version = if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") };
        return Err(ReviewError::Kind { api_version, kind: kind.to_owned() });
    }
    Ok(())
}

fn check_patch(is_empty: bool, patch_type: Option<&str>, mutating: bool) -> Result<(), ReviewError> {
    match (mutating, is_empty, patch_type) {
        (false, false, _) => Err(ReviewError::ValidatingPatch),
        (false, true, Some(_)) => Err(ReviewError::ValidatingPatchType),
        (true, false, None) => Err(ReviewError::NoPatchType),
        (true, true, Some(_)) => Err(ReviewError::NoPatch),
        (true, false, Some("")) => Err(ReviewError::EmptyPatchType),
        (false, true, None) | (true, true, None) | (true, false, Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        let mut answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": {"uid": "u", "allowed": true}});
        for (field, value) in response.as_object().unwrap() {
            answer["response"][field] = value.clone();
        }
        answer
    }

    #[test]
    fn an_answer_is_one_to_the_question_or_none() {
        let wrong =
            |answer: &Value, mutating: bool| read(ReviewVersion::V1, "u", answer, mutating).unwrap_err().to_string();
        assert_eq!(wrong(&json!({}), true), "webhook response was absent");
        assert_eq!(wrong(&answer(json!({"uid": "v"})), true), "expected response.uid=\"u\", got \"v\"");
        let mut other = answer(json!({}));
        other["apiVersion"] = "v1".into();
        assert_eq!(
            wrong(&other, true),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=AdmissionReview"
        );
        let patch = BASE64_STANDARD.encode("[]");
        for (response, mutating, why) in [
            (json!({"patch": patch}), true, "webhook returned response.patch but not response.patchType"),
            (json!({"patchType": "JSONPatch"}), true, "webhook returned response.patchType but not response.patch"),
            (json!({"patch": patch}), false, "validating webhook may not return response.patch"),
            (json!({"patchType": "JSONPatch"}), false, "validating webhook may not return response.patchType"),
            (json!({"patch": patch, "patchType": ""}), true, "webhook returned invalid response.patchType of \"\""),
        ] {
            assert_eq!(wrong(&answer(response), mutating), why);
        }
    }

    #[test]
    fn the_older_version_is_taken_as_it_comes() {
        let patch = BASE64_STANDARD.encode("[]");
        let found = read(ReviewVersion::V1Beta1, "u", &json!({"response": {"allowed": true, "patch": patch}}), true);
        let found = found.unwrap();
        assert_eq!((found.allowed, found.patch_type.as_str()), (true, "JSONPatch"));
        let text = request(ReviewVersion::V1Beta1, "u", json!({}), &Value::Null, &json!({"a": 1}));
        let review: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1beta1");
        assert_eq!(review["request"], json!({"uid": "u", "object": null, "oldObject": {"a": 1}}));
    }
}
