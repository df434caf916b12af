//! Reads an `EncryptionConfiguration`, strictly: what is not known is refused with its field, as by kube-apiserver, and
//! no error shows what stands in the file beyond names of fields.

use std::{fs, io, path::Path, time::Duration};

use serde_json::Value;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    entries::{Key, Kms, ProviderConfiguration, ResourceConfiguration},
    secret::Secret,
    validation::{self, FieldErrors},
};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("error while loading file: error reading encryption provider configuration file {path:?}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file has no text.
    #[error("error while loading file: encryption provider configuration file {0:?} is empty")]
    Empty(String),
    /// The text is not UTF-8, or no YAML.
    #[error("error decoding encryption provider configuration: line {line} is not valid YAML")]
    Syntax {
        /// Counted from 1.
        line: u64,
    },
    /// Another kind of object.
    #[error("error decoding encryption provider configuration: no kind {kind:?} is registered for version {version:?}")]
    Kind {
        /// What the file says.
        kind: String,
        /// What the file says.
        version: String,
    },
    /// Fields that nobody knows.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
    /// A field has another type.
    #[error("error decoding encryption provider configuration: {path}: {expected} is expected")]
    Type {
        /// The field.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
    /// What Kubernetes' validation says.
    #[error("{0}")]
    Invalid(FieldErrors),
    /// An earlier entry leaves nothing for a later one.
    #[error("error while building transformers: resource {resource:?} is masked by earlier rule {rule:?}")]
    Masked {
        /// Of the later entry.
        resource: String,
        /// Of the earlier one.
        rule: String,
    },
    /// Version 1 of the protocol of key services.
    #[error("KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.")]
    KmsV1,
}

/// A configuration that was read and is valid.
#[derive(Debug)]
pub struct FileConfiguration {
    pub(crate) resources: Vec<ResourceConfiguration>,
    /// `sha256:` and the digest of the file in hex.
    pub(crate) hash: String,
}

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
/// For a call of a key service that does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

impl FileConfiguration {
    /// Reads a file. `reload` says that it is watched from then on, which asks for more of key services' names.
    pub fn read(path: &Path, reload: bool) -> Result<Self, ConfigError> {
        let named = || path.display().to_string();
        let bytes = fs::read(path).map_err(|source| ConfigError::Read { path: named(), source })?;
        let bytes = Zeroizing::new(bytes);
        if bytes.is_empty() {
            return Err(ConfigError::Empty(named()));
        }
        Self::parse(&bytes, reload)
    }

    /// The digest of a file as it stands now, without a look at what it says.
    pub fn hash_of(path: &Path) -> Result<String, ConfigError> {
        let read = fs::read(path).map(Zeroizing::new);
        let bytes = read.map_err(|source| ConfigError::Read { path: path.display().to_string(), source })?;
        Ok(hash(&bytes))
    }

    /// Reads the text of a file.
    pub fn parse(bytes: &[u8], reload: bool) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            ConfigError::Syntax { line: line_of(before) }
        })?;
        let options = serde_yaml::options! {
            with_snippet: false,
            budget: serde_yaml::budget! { max_depth: 64, max_nodes: 500_000, max_documents: 1, },
        };
        let value = serde_yaml::from_str_with_options::<Value>(text, options);
        let value = Wiped(value.map_err(|error| ConfigError::Syntax {
            // Nothing else of the error: it may quote the file.
            line: error.without_snippet().location().map_or(1, |location| location.line()),
        })?);
        let mut reader = Reader::default();
        let resources = reader.configuration(&value.0)?;
        if !reader.unknown.is_empty() {
            return Err(ConfigError::Strict(reader.unknown));
        }
        validation::validate(&resources, reload).map_err(ConfigError::Invalid)?;
        Ok(Self { resources, hash: hash(bytes) })
    }

    /// `sha256:` and the digest of the file in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn line_of(before: &[u8]) -> u64 {
    (before.iter().filter(|byte| **byte == b'\n').count() as u64).saturating_add(1)
}

/// A value whose texts are overwritten when it is dropped.
struct Wiped(Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Reads values, and takes note of fields that are not known.
#[derive(Default)]
struct Reader {
    unknown: Vec<String>,
}

impl Reader {
    fn configuration(&mut self, value: &Value) -> Result<Vec<ResourceConfiguration>, ConfigError> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version != API_VERSION || kind != KIND {
            return Err(ConfigError::Kind { kind, version });
        }
        self.only(value, "", &["apiVersion", "kind", "resources"])?;
        self.list(value.get("resources"), "resources", Self::resource)
    }

    fn resource(&mut self, value: &Value, path: &str) -> Result<ResourceConfiguration, ConfigError> {
        self.only(value, path, &["resources", "providers"])?;
        let names = |reader: &mut Self, value: &Value, path: &str| reader.text(Some(value), path);
        Ok(ResourceConfiguration {
            resources: self.list(value.get("resources"), &format!("{path}.resources"), names)?,
            providers: self.list(value.get("providers"), &format!("{path}.providers"), Self::provider)?,
        })
    }

    fn provider(&mut self, value: &Value, path: &str) -> Result<ProviderConfiguration, ConfigError> {
        self.only(value, path, &["aesgcm", "aescbc", "secretbox", "identity", "kms"])?;
        let given = |field: &str| value.get(field).filter(|value| !value.is_null());
        let mut keys = |field: &str| match given(field) {
            None => Ok(None),
            Some(value) => {
                let path = format!("{path}.{field}");
                self.only(value, &path, &["keys"])?;
                self.list(value.get("keys"), &format!("{path}.keys"), Self::key).map(Some)
            }
        };
        let (aesgcm, aescbc, secretbox) = (keys("aesgcm")?, keys("aescbc")?, keys("secretbox")?);
        if let Some(identity) = given("identity") {
            self.only(identity, &format!("{path}.identity"), &[])?;
        }
        let kms = given("kms").map(|kms| self.kms(kms, &format!("{path}.kms"))).transpose()?;
        Ok(ProviderConfiguration { aesgcm, aescbc, secretbox, identity: given("identity").is_some(), kms })
    }

    fn key(&mut self, value: &Value, path: &str) -> Result<Key, ConfigError> {
        self.only(value, path, &["name", "secret"])?;
        let name = self.text(value.get("name"), &format!("{path}.name"))?;
        let secret = self.text(value.get("secret"), &format!("{path}.secret"))?;
        Ok(Key { name, secret: Some(Secret::new(secret)).filter(|secret| !secret.expose().is_empty()) })
    }

    fn kms(&mut self, value: &Value, path: &str) -> Result<Kms, ConfigError> {
        self.only(value, path, &["apiVersion", "name", "cachesize", "endpoint", "timeout"])?;
        let mut text = |field: &str| self.text(value.get(field), &format!("{path}.{field}"));
        let (api_version, name, endpoint) = (text("apiVersion")?, text("name")?, text("endpoint")?);
        let timeout = text("timeout")?;
        let wrong = |field: &str, expected| ConfigError::Type { path: format!("{path}.{field}"), expected };
        let default_ns = i64::try_from(DEFAULT_TIMEOUT.as_nanos()).unwrap_or(i64::MAX);
        let timeout_ns = match value.get("timeout").is_none_or(Value::is_null) {
            true => default_ns,
            false => duration_ns(&timeout).ok_or_else(|| wrong("timeout", "a duration such as 3s"))?,
        };
        let cache_size = match value.get("cachesize") {
            None | Some(Value::Null) => None,
            Some(size) => Some(size.as_i64().ok_or_else(|| wrong("cachesize", "a number"))?),
        };
        // Without one it is the first.
        let api_version = if api_version.is_empty() { "v1".to_owned() } else { api_version };
        let cache_size = cache_size.or_else(|| (api_version == "v1").then_some(1000));
        Ok(Kms { api_version, name, cache_size, endpoint, timeout_ns })
    }

    /// Takes note of all fields but these.
    fn only(&mut self, value: &Value, path: &str, known: &[&str]) -> Result<(), ConfigError> {
        let Value::Object(map) = value else {
            return Err(ConfigError::Type { path: path.to_owned(), expected: "a map" });
        };
        for field in map.keys().filter(|field| !known.contains(&field.as_str())) {
            let dot = if path.is_empty() { "" } else { "." };
            self.unknown.push(format!("unknown field \"{path}{dot}{field}\""));
        }
        Ok(())
    }

    fn text(&mut self, value: Option<&Value>, path: &str) -> Result<String, ConfigError> {
        match value {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(ConfigError::Type { path: path.to_owned(), expected: "a text" }),
        }
    }

    fn list<T>(
        &mut self,
        value: Option<&Value>,
        path: &str,
        mut read: impl FnMut(&mut Self, &Value, &str) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                list.iter().enumerate().map(|(at, item)| read(self, item, &format!("{path}[{at}]"))).collect()
            }
            Some(_) => Err(ConfigError::Type { path: path.to_owned(), expected: "a list" }),
        }
    }
}

/// A duration as Go writes it, in nanoseconds.
fn duration_ns(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut sum = 0_f64;
    while !rest.is_empty() || sum == 0.0 {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        sum += number * unit;
        rest = &rest[end..];
        if rest.is_empty() {
            break;
        }
    }
    // Saturates.
    let sum = sum as i64;
    Some(if negative { sum.saturating_neg() } else { sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    const SECRET: &str = "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/Cg==";

    fn refused(text: &str) -> String {
        let error = FileConfiguration::parse(text.as_bytes(), false).expect_err(text);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(SECRET) && !shown.contains("12345678"), "{shown}");
        error.to_string()
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_field() {
        let key = format!("      - {{name: a, secret: \"{SECRET}\", sekret: 12345678}}\n");
        let text = format!(
            "{HEAD}extra: 1\nresources:\n- resources: [secrets]\n  provider: x\n  providers:\n  - aesgcm:\n      keys:\n{key}"
        );
        assert_eq!(
            refused(&text),
            "strict decoding error: unknown field \"extra\", unknown field \"resources[0].provider\", \
             unknown field \"resources[0].providers[0].aesgcm.keys[0].sekret\""
        );
    }

    #[test]
    fn no_error_quotes_the_file() {
        let number = format!(
            "{HEAD}resources:\n- resources: [secrets]\n  providers:\n  - aesgcm:\n      keys:\n      - secret: 12345678\n"
        );
        assert!(refused(&number).ends_with("resources[0].providers[0].aesgcm.keys[0].secret: a text is expected"));
        let broken = format!("{HEAD}resources:\n- secret: {SECRET}\n  x: [\n");
        assert!(refused(&broken).contains("is not valid YAML"), "{}", refused(&broken));
        let twice = format!("{HEAD}resources: {SECRET}\nresources: {SECRET}\n");
        assert!(refused(&twice).contains("line 4 is not valid YAML"), "{}", refused(&twice));
    }

    #[test]
    fn other_kinds_and_versions_are_refused() {
        assert_eq!(
            refused("kind: Secret\napiVersion: v1\n"),
            "error decoding encryption provider configuration: no kind \"Secret\" is registered for version \"v1\""
        );
        assert!(refused("resources: []\n").contains("no kind \"\""));
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, ns) in
            [("3s", 3_000_000_000), ("1m30s", 90_000_000_000), ("-1ms", -1_000_000), ("0", 0), ("1.5s", 1_500_000_000)]
        {
            assert_eq!(duration_ns(text), Some(ns), "{text}");
        }
        for text in ["", "s", "3", "3x", "-"] {
            assert_eq!(duration_ns(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.yaml");
        assert!(matches!(FileConfiguration::read(&path, false), Err(ConfigError::Read { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(FileConfiguration::read(&path, false), Err(ConfigError::Empty(_))));
        let text = format!("{HEAD}resources:\n- resources: [secrets]\n  providers:\n  - identity: {{}}\n");
        std::fs::write(&path, text).unwrap();
        let read = FileConfiguration::read(&path, false).unwrap();
        assert_eq!(read.hash(), FileConfiguration::hash_of(&path).unwrap());
        assert!(read.hash().starts_with("sha256:"));
    }
}
