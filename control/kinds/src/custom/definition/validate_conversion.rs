//! Why `spec.conversion` may not stand: its strategy, and where its webhook is.

use serde_json::{Value, json};

use crate::kinds::{FieldError, names};

/// Every reason why a conversion may not stand.
pub fn conversion(conversion: &Value) -> Vec<FieldError> {
    if conversion.is_null() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let config = &conversion["webhook"]["clientConfig"];
    let path = "spec.conversion.webhookClientConfig";
    match conversion["strategy"].as_str().unwrap_or_default() {
        "Webhook" => {
            match (config["url"].as_str(), config["service"].is_object()) {
                _ if !config.is_object() => {
                    errors.push(FieldError::required(path, "required when strategy is set to Webhook"));
                }
                (None, false) | (Some(_), true) => {
                    errors.push(FieldError::required(path, "exactly one of url or service is required"));
                }
                (Some(url), false) => errors.extend(webhook_url(&format!("{path}.url"), url)),
                (None, true) => errors.extend(webhook_service(&format!("{path}.service"), &config["service"])),
            }
            errors.extend(review_versions(&conversion["webhook"]["conversionReviewVersions"]));
        }
        strategy => {
            match strategy {
                "" => errors.push(FieldError::required("spec.conversion.strategy", "")),
                "None" => {}
                _ => {
                    let at = "spec.conversion.strategy";
                    errors.push(FieldError::not_supported(at, &conversion["strategy"], &["None", "Webhook"]));
                }
            }
            let why = "should not be set when strategy is not set to Webhook";
            if config.is_object() {
                errors.push(FieldError::forbidden(path, why));
            }
            let versions = &conversion["webhook"]["conversionReviewVersions"];
            if versions.as_array().is_some_and(|list| !list.is_empty()) {
                errors.push(FieldError::forbidden("spec.conversion.conversionReviewVersions", why));
            }
        }
    }
    errors
}

fn review_versions(versions: &Value) -> Vec<FieldError> {
    let path = "spec.conversion.conversionReviewVersions";
    let list = versions.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    for (index, version) in list.iter().enumerate() {
        let at = format!("{path}[{index}]");
        if list[..index].contains(version) {
            errors.push(FieldError::invalid(at, version, "duplicate version"));
            continue;
        }
        let why = names::label_1035(version.as_str().unwrap_or_default());
        errors.extend(why.into_iter().map(|why| FieldError::invalid(&at, version, why)));
    }
    if !list.iter().any(|version| version == "v1" || version == "v1beta1") {
        errors.push(FieldError::invalid(path, versions, "must include at least one of v1, v1beta1"));
    }
    errors
}

fn webhook_url(path: &str, text: &str) -> Vec<FieldError> {
    const FORM: &str = "; desired format: https://host[/path]";
    let invalid = |why: String| FieldError::invalid(path, &json!(text), why);
    let Ok(uri) = text.parse::<http::Uri>() else {
        return vec![FieldError::required(path, &format!("url must be a valid URL: it is not one{FORM}"))];
    };
    let mut errors = Vec::new();
    if uri.scheme_str() != Some("https") {
        errors.push(invalid(format!("'https' is the only allowed URL scheme{FORM}")));
    }
    if uri.host().is_none_or(str::is_empty) {
        errors.push(invalid(format!("host must be specified{FORM}")));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        errors.push(invalid("user information is not permitted in the URL".to_owned()));
    }
    if text.contains('#') {
        errors.push(invalid("fragments are not permitted in the URL".to_owned()));
    }
    if uri.query().is_some() {
        errors.push(invalid("query parameters are not permitted in the URL".to_owned()));
    }
    errors
}

fn webhook_service(path: &str, service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["name", "namespace"] {
        if service[field].as_str().is_none_or(str::is_empty) {
            errors.push(FieldError::required(format!("{path}.{field}"), &format!("service {field} is required")));
        }
    }
    if !service["port"].as_i64().is_none_or(|port| (1..=65535).contains(&port)) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(format!("{path}.port"), &service["port"], why));
    }
    let Some(text) = service["path"].as_str() else { return errors };
    let mut invalid = |why: &str| errors.push(FieldError::invalid(format!("{path}.path"), &service["path"], why));
    match text.strip_prefix('/') {
        None => invalid("must start with a '/'"),
        Some("") => {}
        Some(rest) => {
            for (at, segment) in rest.trim_end_matches('/').split('/').enumerate() {
                if segment.is_empty() {
                    invalid(&format!("segment[{at}] may not be empty"));
                } else if !names::subdomain(segment).is_empty() {
                    invalid(&format!("segment[{at}]: {}", names::subdomain(segment).join(",")));
                }
            }
        }
    }
    errors
}
