//! What a webhook's denial is to the client, and what the failure to ask it.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/errors`.

use serde_json::Value;

use crate::status::{Status, reason};

/// Why a webhook did not let a request pass.
#[derive(Debug)]
pub enum Failure {
    /// It was not asked, or did not answer as it should: the failure policy decides. With a code for `/metrics`.
    Call(String, u16),
    /// It denied the request.
    Refused(Status),
    /// The request is refused, whatever the failure policy says, and not by the webhook.
    Internal(Status),
}

/// The code of a call that came to nothing.
pub const UNAVAILABLE: u16 = 503;

/// The refusal of a request by the webhook `name`, whose answer had this `status`.
pub fn denied(name: &str, status: &Value) -> Status {
    let text = |field: &str| status[field].as_str().unwrap_or_default();
    let by = format!("admission webhook {name:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    // A refusal with the code of a success would be none.
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let details = status["details"].is_object().then(|| status["details"].clone());
    Status { code, reason: reason(text("reason")), message, details }
}

/// The refusal of a dry run that would have effects.
pub fn no_dry_run(name: &str) -> Status {
    Status::bad_request(format!("admission webhook {name:?} does not support dry run"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_denial_says_who_and_why() {
        let of = |status: Value| {
            let status = denied("a.example.com", &status);
            (status.code, status.reason, status.message)
        };
        let by = "admission webhook \"a.example.com\" denied the request";
        assert_eq!(of(Value::Null), (400, "", format!("{by} without explanation")));
        assert_eq!(of(json!({"message": "no"})), (400, "", format!("{by}: no")));
        assert_eq!(of(json!({"reason": "Forbidden", "code": 403})), (403, "Forbidden", format!("{by}: Forbidden")));
        assert_eq!(of(json!({"reason": "not liked", "message": "no", "code": 200})).1, "not liked");
        assert_eq!(of(json!({"code": 200})).0, 400, "never a success");
    }
}
