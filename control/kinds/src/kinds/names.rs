//! Which names, labels and annotations objects of any kind may have, in Kubernetes' words
//! (`k8s.io/apimachinery/pkg/util/validation`).

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{FieldError, Kind};
use crate::schema::SentEmpties;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const UNDERSCORED: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENVIRONMENT_VARIABLE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
/// Bytes of all annotations of an object together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Every reason why the metadata of `object` may not stand: of a new object, or of one that is updated.
pub fn metadata(kind: &Kind, object: &Value, is_update: bool) -> Vec<FieldError> {
    let metadata = &object["metadata"];
    let mut errors = Vec::new();
    if is_update && let Some(base) = metadata["generateName"].as_str() {
        let cannot = ["/", "%"].into_iter().filter(|part| base.contains(part));
        let cannot = cannot.map(|part| format!("may not contain '{part}'"));
        errors.extend(cannot.map(|why| FieldError::invalid("metadata.generateName", &json!(base), why)));
    }
    if let Some(base) = metadata["generateName"].as_str().filter(|base| !base.is_empty()) {
        let why = (kind.object_name)(&as_generated(base)).into_iter();
        errors.extend(why.map(|why| FieldError::invalid("metadata.generateName", &json!(base), why)));
    }
    match metadata["name"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        _ => errors.extend(FieldError::each("metadata.name", &metadata["name"], kind.object_name)),
    }
    errors.extend(FieldError::negative("metadata.generation", &metadata["generation"]));
    errors.extend(labels("metadata.labels", &metadata["labels"]));
    errors.extend(annotations("metadata.annotations", &metadata["annotations"]));
    errors.extend(owner_references(metadata));
    errors.extend(finalizers(&metadata["finalizers"]));
    if !GENERIC.contains(&&*kind.group) && !kind.bare_finalizers {
        errors.extend(unqualified(&metadata["finalizers"]));
    }
    errors
}

/// Groups whose kinds Kubernetes' core has no rules for.
const GENERIC: [&str; 6] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "policy",
];
/// Finalizers that need no prefix.
pub const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Every finalizer that has no prefix and needs one.
fn unqualified(list: &Value) -> Vec<FieldError> {
    const WHY: &str = "name is neither a standard finalizer name nor is it fully qualified";
    let finalizers = list.as_array().into_iter().flatten().enumerate();
    let wrong = finalizers.filter(|(_, name)| {
        let name = name.as_str().unwrap_or_default();
        !name.contains('/') && !STANDARD_FINALIZERS.contains(&name)
    });
    wrong.map(|(i, name)| FieldError::invalid(format!("metadata.finalizers[{i}]"), name, WHY)).collect()
}

/// The start of a generated name as it will be in the name: a dash at its end does not stay there.
fn as_generated(base: &str) -> Cow<'_, str> {
    match base.strip_suffix('-').filter(|rest| !rest.is_empty()) {
        Some(rest) => {
            let kept = rest.char_indices().next_back().map_or(0, |(at, _)| at);
            format!("{}a", &rest[..kept]).into()
        }
        None => base.into(),
    }
}

fn owner_references(metadata: &Value) -> Vec<FieldError> {
    const PATH: &str = "metadata.ownerReferences";
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            // `a/b/c` is no group and version.
            let has_no_version =
                field == "apiVersion" && (text(field).ends_with('/') || text(field).matches('/').count() > 1);
            if text(field).is_empty() || has_no_version {
                errors.push(FieldError::invalid(format!("{PATH}.{field}"), &json!(text(field)), why));
            }
        }
        if (text("apiVersion"), text("kind")) == ("v1", "Event") {
            errors.push(FieldError::invalid(PATH, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(FieldError::invalid(PATH, &metadata["ownerReferences"], why));
                }
                None => controller = Some(this),
            }
        }
    }
    errors
}

fn finalizers(list: &Value) -> Vec<FieldError> {
    const PATH: &str = "metadata.finalizers";
    let finalizers = || list.as_array().into_iter().flatten();
    let mut errors: Vec<FieldError> =
        finalizers().flat_map(|finalizer| FieldError::each(PATH, finalizer, qualified_name)).collect();
    if finalizers().any(|f| f == "orphan") && finalizers().any(|f| f == "foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(PATH, list, why));
    }
    errors
}

/// Every reason why a map cannot be annotations.
pub fn annotations(path: &str, map: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in map.as_object().into_iter().flatten() {
        let why = qualified_name(&key.to_lowercase()).into_iter();
        errors.extend(why.map(|why| FieldError::invalid(path, &json!(key), why)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
    errors
}

/// The fields of metadata in the order of their Go type, with the names that messages give them.
const METADATA: [(&str, &str); 15] = [
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("labels", "labels"),
    ("annotations", "annotations"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

/// Every field of a template's metadata that templates do not have.
pub fn only_labels_and_annotations(path: &str, metadata: &Value, empties: &SentEmpties) -> Vec<FieldError> {
    let is_set = |field: &str| {
        metadata.get(field).is_some_and(|value| !value.is_null()) || empties.at(&format!("{path}.{field}")).is_some()
    };
    let others = METADATA.iter().filter(|(field, _)| !matches!(*field, "labels" | "annotations") && is_set(field));
    others.map(|(_, shown)| FieldError::forbidden(format!("{path}.{shown}"), "cannot be set")).collect()
}

/// Every reason why a map cannot be labels.
pub fn labels(path: &str, map: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in map.as_object().into_iter().flatten() {
        errors.extend(qualified_name(key).into_iter().map(|why| FieldError::invalid(path, &json!(key), why)));
        let text = value.as_str().unwrap_or_default();
        errors.extend(label_value(text).into_iter().map(|why| FieldError::invalid(path, value, why)));
    }
    errors
}

/// RFC 1123 subdomain, at most 253 bytes.
pub fn subdomain(text: &str) -> Vec<String> {
    let shaped = text.split('.').all(is_label);
    reasons([(text.len() > 253, "must be no more than 253 characters"), (!shaped, SUBDOMAIN)])
}

/// `*.` before an RFC 1123 subdomain.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let shaped = text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label));
    let too_long = (text.len() > 253).then(|| "must be no more than 253 characters".to_owned());
    [too_long, (!shaped).then(|| WILDCARD.to_owned())].into_iter().flatten().collect()
}

/// What can stand in a path of the API as one segment.
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].into_iter().filter(|part| text.contains(part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// `example.com/path`
pub fn domain_prefixed_path(path: &str, value: &Value) -> Vec<FieldError> {
    const SHAPE: &str = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let Some((host, rest)) = text.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        return vec![FieldError::invalid(path, value, SHAPE)];
    };
    let mut errors: Vec<FieldError> = FieldError::invalid_each(path, &host.into(), subdomain(host)).collect();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !rest.bytes().all(allowed) {
        let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(path, &rest.into(), why));
    }
    errors
}

/// A domain of at least three parts, as webhooks are named.
pub fn fully_qualified(path: &str, value: &Value) -> Option<FieldError> {
    let text = value.as_str().unwrap_or_default();
    let wrong = subdomain(text);
    if text.is_empty() {
        Some(FieldError::required(path, ""))
    } else if !wrong.is_empty() {
        Some(FieldError::invalid(path, value, wrong.join(",")))
    } else if text.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        Some(FieldError::invalid(path, value, why))
    } else {
        None
    }
}

/// The name of a CSI driver, at most 63 bytes, in upper or lower case.
pub fn csi_driver(path: &str, value: &Value) -> Vec<FieldError> {
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let long = (text.len() > 63).then(|| FieldError::too_long(path, 63));
    long.into_iter().chain(FieldError::invalid_each(path, value, subdomain(&text.to_lowercase()))).collect()
}

/// The same, with underscores: what stands in the DNS for other than hosts.
pub fn subdomain_with_underscore(text: &str) -> Vec<String> {
    let label = |label: &str| {
        let ends = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let label = label.strip_prefix('_').unwrap_or(label);
        bounded(label, ends) && label.bytes().all(|b| ends(b) || matches!(b, b'-' | b'_'))
    };
    let shaped = text.split('.').all(label);
    reasons([(text.len() > 253, "must be no more than 253 characters"), (!shaped, UNDERSCORED)])
}

/// RFC 1123 label, at most 63 bytes.
pub fn label(text: &str) -> Vec<String> {
    let why = if text.split('.').all(is_label) { "must not contain dots" } else { LABEL };
    reasons([(text.len() > 63, "must be no more than 63 characters"), (!is_label(text), why)])
}

/// RFC 1035 label: a letter first.
pub fn label_1035(text: &str) -> Vec<String> {
    let shaped = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    reasons([(text.len() > 63, "must be no more than 63 characters"), (!shaped, LABEL_1035)])
}

/// A key of a ConfigMap or a Secret, which becomes a file's name.
pub fn config_key(text: &str) -> Vec<String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let shaped = !text.is_empty() && text.bytes().all(valid);
    let dots = match text {
        "." => "must not be '.'",
        ".." => "must not be '..'",
        _ => "must not start with '..'",
    };
    reasons([
        (text.len() > 253, "must be no more than 253 characters"),
        (!shaped, CONFIG_KEY),
        (text == "." || text.starts_with(".."), dots),
    ])
}

/// The name of an environment variable.
pub fn environment_variable(text: &str) -> Vec<String> {
    let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=');
    reasons([(text.is_empty(), "environment variable name must be non-empty"), (!printable, ENVIRONMENT_VARIABLE)])
}

fn reasons<const N: usize>(reasons: [(bool, &str); N]) -> Vec<String> {
    reasons.into_iter().filter(|(holds, _)| *holds).map(|(_, why)| why.to_owned()).collect()
}

/// A label's key: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                &QUALIFIED["name part ".len()..]
            )];
        }
        Some(("", name)) => {
            errors.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            let shaped = prefix.split('.').all(is_label);
            let why = reasons([(prefix.len() > 253, "must be no more than 253 bytes"), (!shaped, SUBDOMAIN)]);
            errors.extend(why.into_iter().map(|why| format!("prefix part {why}")));
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_word(name) {
        errors.push(QUALIFIED.to_owned());
    }
    errors
}

/// A label's value: empty, or a word of at most 63 bytes.
pub fn label_value(text: &str) -> Vec<String> {
    let shaped = text.is_empty() || is_word(text);
    reasons([(text.len() > 63, "must be no more than 63 bytes"), (!shaped, LABEL_VALUE)])
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bounded(text, inner) && text.bytes().all(|b| inner(b) || b == b'-')
}

fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric();
    bounded(text, inner) && text.bytes().all(|b| inner(b) || matches!(b, b'-' | b'_' | b'.'))
}

fn bounded(text: &str, ends: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| ends(*b)) && bytes.last().is_some_and(|b| ends(*b))
}

#[cfg(test)]
mod tests;
