//! A refusal by the server, and how kubectl words it.

use serde_json::Value;

use super::ResourceType;

/// The API answered with a `Status` that is a failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// `NotFound`, `Conflict`, …; empty where the answer was no Status.
    pub reason: String,
    /// For people; the answer's body where it was no Status.
    pub message: String,
    /// `details` of the Status: name, kind, causes; null where there are none.
    pub details: Value,
}

impl ApiError {
    /// Reads the body of a failed answer: a Status, or whatever a proxy on the way said.
    pub fn from_body(code: u16, body: &[u8]) -> Self {
        if let Ok(status) = serde_json::from_slice::<Value>(body)
            && status["kind"] == "Status"
        {
            return Self {
                code,
                reason: status["reason"].as_str().unwrap_or_default().to_owned(),
                message: status["message"].as_str().unwrap_or("unknown").to_owned(),
                details: status["details"].clone(),
            };
        }
        let text = String::from_utf8_lossy(body).trim().to_owned();
        let message = if text.is_empty() { format!("the server answered with HTTP {code}") } else { text };
        Self { code, reason: String::new(), message, details: Value::Null }
    }

    /// What the server answers where there is no such object; for one that a list or a watch does not show.
    pub fn not_found(kind: &ResourceType, name: &str) -> Self {
        let resource = match kind.group.as_str() {
            "" => kind.plural.clone(),
            group => format!("{}.{group}", kind.plural),
        };
        let message = format!("{resource} \"{name}\" not found");
        Self { code: 404, reason: "NotFound".into(), message, details: Value::Null }
    }

    /// Whether the object, or the resource itself, does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// `Error from server (NotFound): …`, or `The Service "web" is invalid: …` for a validation.
    pub fn as_kubectl(&self, context: &str) -> String {
        let context = if context.is_empty() { String::new() } else { format!("{context}: ") };
        if self.reason == "Invalid" && self.details["kind"].is_string() {
            let subject = format!(
                "The {} \"{}\" is invalid",
                self.details["kind"].as_str().unwrap_or_default(),
                self.details["name"].as_str().unwrap_or_default()
            );
            let causes = self.details["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let line = |cause: &Value| {
                let message = cause["message"].as_str().unwrap_or_default();
                match cause["field"].as_str().filter(|field| !field.is_empty()) {
                    Some(field) => format!("{field}: {message}"),
                    None => message.to_owned(),
                }
            };
            return match causes {
                [] => format!("{context}{}", self.message),
                [one] => format!("{context}{subject}: {}", line(one)),
                many => {
                    let lines: Vec<String> = many.iter().map(|cause| format!("* {}", line(cause))).collect();
                    format!("{context}{subject}: \n{}", lines.join("\n"))
                }
            };
        }
        match self.reason.as_str() {
            "" => format!("Error from server: {context}{}", self.message),
            "Unauthorized" => format!("error: {context}You must be logged in to the server ({})", self.message),
            reason => format!("Error from server ({reason}): {context}{}", self.message),
        }
    }
}

impl From<&kube::core::Status> for ApiError {
    fn from(status: &kube::core::Status) -> Self {
        let details = status.details.as_ref().and_then(|details| serde_json::to_value(details).ok());
        Self {
            code: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
            details: details.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn several_causes_are_listed_one_a_line() {
        let body = json!({"kind": "Status", "reason": "Invalid", "message": "long", "code": 422, "details": {
            "kind": "Service", "name": "web", "causes": [
                {"field": "spec.ports[0].port", "message": "Invalid value: 0"},
                {"field": "spec.type", "message": "Unsupported value"}]}});
        let error = ApiError::from_body(422, body.to_string().as_bytes());
        assert_eq!(
            error.as_kubectl(""),
            "The Service \"web\" is invalid: \n* spec.ports[0].port: Invalid value: 0\n* spec.type: Unsupported value"
        );
    }

    #[test]
    fn an_object_that_a_watch_does_not_show_is_reported_as_by_the_server() {
        let kind = ResourceType { group: "apps".into(), plural: "deployments".into(), ..ResourceType::default() };
        let shown = ApiError::not_found(&kind, "web").as_kubectl("");
        assert_eq!(shown, "Error from server (NotFound): deployments.apps \"web\" not found");
    }

    #[test]
    fn an_answer_that_is_no_status_is_passed_on() {
        let error = ApiError::from_body(502, b"bad gateway\n");
        assert_eq!(error.as_kubectl("get"), "Error from server: get: bad gateway");
    }
}
