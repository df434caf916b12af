//! Which configurations are refused, with Kubernetes' paths and messages. Source: `ValidateEncryptionConfiguration` of
//! 1.35.

use std::{collections::BTreeSet, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    entries::{Key, Kms, ProviderConfiguration, ResourceConfiguration},
    resource::{ANY, GroupResource, UNSERVED},
};

const MORE_THAN_ONE: &str =
    "more than one provider specified in a single element, should split into different list elements";
const NO_PROVIDER: &str =
    "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
const NOT_BASE64: &str = "secrets must be base64 encoded";
const EVENTS_GROUP: &str = "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' \
     instead in the config file";
const EXTENSIONS_GROUP: &str = "'extensions' group has been removed and cannot be used for encryption";
const STAR: &str = "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources";
const OVERLAP: &str = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed \
     as they will be masked";
const NOT_SERVED: &str = "resources which do not have REST API/s cannot be encrypted";
const CAPITAL: &str = "resource name should not contain capital letters";
const ACROSS_GROUPS: &str = "encrypting the same resource across groups is not supported";
const DUPLICATE: &str = "the same resource cannot be specified multiple times";
const REDACTED: &str = "\"REDACTED\"";

const AES_KEY_SIZES: &[usize] = &[16, 24, 32];
const SECRETBOX_KEY_SIZES: &[usize] = &[32];

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    path: String,
    /// The value as it is shown; nothing for one that is missing.
    value: Option<String>,
    detail: String,
}

/// All that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldError {
    fn required(path: &str, detail: impl Into<String>) -> Self {
        Self { path: path.to_owned(), value: None, detail: detail.into() }
    }

    /// `value` as JSON.
    fn invalid(path: &str, value: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.to_owned(), value: Some(value.into()), detail: detail.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => write!(f, "{}: Required value: {}", self.path, self.detail),
            Some(value) => write!(f, "{}: Invalid value: {value}: {}", self.path, self.detail),
        }
    }
}

/// As Kubernetes shows several errors; each once.
impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told: Vec<String> = Vec::new();
        for error in self.0.iter().map(ToString::to_string) {
            if !told.contains(&error) {
                told.push(error);
            }
        }
        match told.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

/// Refuses what kube-apiserver refuses.
pub fn validate(resources: &[ResourceConfiguration], reload: bool) -> Result<(), FieldErrors> {
    let mut errors = Vec::new();
    if resources.is_empty() {
        errors.push(FieldError::required("resources", "at least one resources is required"));
    }
    let mut kms_names = BTreeSet::new();
    for (at, entry) in resources.iter().enumerate() {
        let (names, providers) = (format!("resources[{at}].resources"), format!("resources[{at}].providers"));
        if entry.resources.is_empty() {
            errors.push(FieldError::required(&names, format!("at least one {names} is required")));
        }
        validate_overlap(&entry.resources, &names, &mut errors);
        validate_names(&entry.resources, &names, &mut errors);
        if entry.providers.is_empty() {
            errors.push(FieldError::required(&providers, format!("at least one {providers} is required")));
        }
        for (at, provider) in entry.providers.iter().enumerate() {
            let path = format!("{providers}[{at}]");
            validate_single(provider, &path, &mut errors);
            let keys = |name: &str| format!("{path}.{name}.keys");
            match provider {
                ProviderConfiguration { kms: Some(kms), .. } => {
                    validate_kms(kms, &format!("{path}.kms"), (&kms_names, reload), &mut errors);
                    kms_names.insert(kms.name.clone());
                }
                ProviderConfiguration { aesgcm: Some(given), .. } => {
                    validate_keys(given, &keys("aesgcm"), AES_KEY_SIZES, &mut errors);
                }
                ProviderConfiguration { aescbc: Some(given), .. } => {
                    validate_keys(given, &keys("aescbc"), AES_KEY_SIZES, &mut errors);
                }
                ProviderConfiguration { secretbox: Some(given), .. } => {
                    validate_keys(given, &keys("secretbox"), SECRETBOX_KEY_SIZES, &mut errors);
                }
                _ => {}
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(FieldErrors(errors)) }
}

fn validate_overlap(names: &[String], path: &str, errors: &mut Vec<FieldError>) {
    let parsed: Vec<GroupResource> = names.iter().map(|name| GroupResource::parse(name)).collect();
    let (mut has_overlap, mut has_duplicate) = (false, false);
    for (i, one) in parsed.iter().enumerate() {
        for (_, other) in parsed.iter().enumerate().filter(|(j, _)| i != *j) {
            if one == other && !has_duplicate {
                has_duplicate = true;
                continue;
            }
            has_overlap |= *one == GroupResource::any()
                || (one.group == other.group && (one.resource == ANY || other.resource == ANY));
        }
    }
    for (found, detail) in [(has_duplicate, DUPLICATE), (has_overlap, OVERLAP)] {
        if found {
            errors.push(FieldError::invalid(path, serde_json::Value::from(names).to_string(), detail));
        }
    }
}

fn validate_names(names: &[String], path: &str, errors: &mut Vec<FieldError>) {
    for (at, name) in names.iter().enumerate() {
        let parsed = GroupResource::parse(name);
        let detail = match name.as_str() {
            _ if name.to_lowercase() != *name => CAPITAL,
            ANY => STAR,
            "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" => NOT_SERVED,
            name if UNSERVED.contains(&name) => NOT_SERVED,
            _ if parsed.group == "events.k8s.io" => EVENTS_GROUP,
            _ if parsed.group == "extensions" => EXTENSIONS_GROUP,
            _ if parsed.group == ANY && parsed.resource != ANY => ACROSS_GROUPS,
            _ => continue,
        };
        errors.push(FieldError::invalid(&format!("{path}[{at}]"), format!("{name:?}"), detail));
    }
}

fn validate_single(provider: &ProviderConfiguration, path: &str, errors: &mut Vec<FieldError>) {
    let given = [
        ("aesgcm", provider.aesgcm.is_some()),
        ("aescbc", provider.aescbc.is_some()),
        ("secretbox", provider.secretbox.is_some()),
        ("identity", provider.identity),
        ("kms", provider.kms.is_some()),
    ];
    let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
    let detail = match given.len() {
        0 => NO_PROVIDER,
        1 => return,
        _ => MORE_THAN_ONE,
    };
    // Kubernetes shows the providers with their keys.
    let shown: serde_json::Map<String, serde_json::Value> =
        given.into_iter().map(|name| (name.to_owned(), "REDACTED".into())).collect();
    errors.push(FieldError::invalid(path, serde_json::Value::Object(shown).to_string(), detail));
}

fn validate_keys(keys: &[Key], path: &str, sizes: &[usize], errors: &mut Vec<FieldError>) {
    if keys.is_empty() {
        errors.push(FieldError::required(path, "at least one keys is required"));
    }
    for (at, key) in keys.iter().enumerate() {
        if key.name.is_empty() {
            errors.push(FieldError::required(&format!("{path}[{at}].name"), "name is a mandatory field for a key"));
        }
        let path = format!("{path}[{at}].secret");
        let Some(secret) = &key.secret else {
            errors.push(FieldError::required(&path, "secret is a mandatory field for a key"));
            continue;
        };
        let Some(bytes) = decode(secret.expose()) else {
            errors.push(FieldError::invalid(&path, REDACTED, NOT_BASE64));
            continue;
        };
        if !sizes.contains(&bytes.len()) {
            let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            let (length, sizes) = (bytes.len(), sizes.join(" "));
            let detail = format!("secret is not of the expected length, got {length}, expected one of [{sizes}]");
            errors.push(FieldError::invalid(&path, REDACTED, detail));
        }
    }
}

/// The bytes of a secret. Go's decoder leaves line breaks out.
pub fn decode(secret: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text: Zeroizing<Vec<u8>> =
        Zeroizing::new(secret.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect());
    STANDARD.decode(text.as_slice()).ok().map(Zeroizing::new)
}

fn validate_kms(kms: &Kms, path: &str, (names, reload): (&BTreeSet<String>, bool), errors: &mut Vec<FieldError>) {
    let is_v1 = kms.api_version == "v1";
    let name_path = format!("{path}.name");
    let name = format!("{:?}", kms.name);
    if kms.name.is_empty() {
        errors.push(FieldError::required(&name_path, "name is a mandatory field for a provider"));
    }
    if !is_v1 && kms.name.contains(':') {
        let detail = format!("invalid KMS provider name {}, must not contain ':'", kms.name);
        errors.push(FieldError::invalid(&name_path, name.clone(), detail));
    }
    if (reload || !is_v1) && names.contains(&kms.name) {
        let detail = format!("duplicate KMS provider name {}, names must be unique", kms.name);
        errors.push(FieldError::invalid(&name_path, name, detail));
    }
    if kms.timeout_ns <= 0 {
        let shown = format!("\"{}s\"", kms.timeout_ns as f64 / 1e9);
        errors.push(FieldError::invalid(&format!("{path}.timeout"), shown, "timeout should be a positive value"));
    }
    let endpoint = format!("{path}.endpoint");
    match kms.endpoint.split_once(':').map(|(scheme, _)| scheme) {
        _ if kms.endpoint.is_empty() => {
            errors.push(FieldError::invalid(&endpoint, "\"\"", "endpoint is a mandatory field for a kms"));
        }
        Some("unix") => {}
        scheme => {
            let scheme = scheme.unwrap_or_default();
            let detail = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
            errors.push(FieldError::invalid(&endpoint, format!("{:?}", kms.endpoint), detail));
        }
    }
    let size_path = format!("{path}.cachesize");
    match kms.cache_size {
        Some(size) if !is_v1 => {
            errors.push(FieldError::invalid(&size_path, size.to_string(), "cachesize is not supported in v2"));
        }
        Some(0) => {
            let detail = "cachesize should be a positive value, or negative to disable";
            errors.push(FieldError::invalid(&size_path, "0", detail));
        }
        Some(_) | None => {}
    }
    if !matches!(kms.api_version.as_str(), "v1" | "v2") {
        let detail = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
        errors.push(FieldError::invalid(&format!("{path}.apiVersion"), format!("{:?}", kms.api_version), detail));
    }
}

#[cfg(test)]
mod tests;
