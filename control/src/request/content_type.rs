//! What a request body is written in.

use mediatype::MediaType;

/// The media types that a body may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// Also when the client names none.
    Json,
    /// YAML, one document.
    Yaml,
    /// Kubernetes' protobuf envelope.
    Protobuf,
    /// RFC 6902.
    JsonPatch,
    /// RFC 7386.
    MergePatch,
    /// Kubernetes' own, which merges lists by keys.
    StrategicMergePatch,
    /// Server-side apply.
    ApplyPatch,
    /// Not served; the name is for the refusal.
    Other(String),
}

impl ContentType {
    /// Reads a `Content-Type` header; its parameters are not looked at.
    pub fn of(header: &str) -> Self {
        let header = header.trim();
        if header.is_empty() || header == "*/*" {
            return Self::Json;
        }
        let Ok(media_type) = MediaType::parse(header) else { return Self::Other(header.to_owned()) };
        match media_type.essence().to_string().to_ascii_lowercase().as_str() {
            "application/json" => Self::Json,
            "application/yaml" => Self::Yaml,
            "application/vnd.kubernetes.protobuf" => Self::Protobuf,
            "application/json-patch+json" => Self::JsonPatch,
            "application/merge-patch+json" => Self::MergePatch,
            "application/strategic-merge-patch+json" => Self::StrategicMergePatch,
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => Self::ApplyPatch,
            other => Self::Other(other.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        assert_eq!(ContentType::of(""), ContentType::Json);
        assert_eq!(ContentType::of("Application/JSON; charset=utf-8"), ContentType::Json);
        assert_eq!(ContentType::of("application/json-patch+json"), ContentType::JsonPatch);
        assert_eq!(ContentType::of("application/apply-patch+yaml"), ContentType::ApplyPatch);
        assert_eq!(ContentType::of("text/plain"), ContentType::Other("text/plain".into()));
        assert_eq!(ContentType::of("rubbish"), ContentType::Other("rubbish".into()));
    }
}
