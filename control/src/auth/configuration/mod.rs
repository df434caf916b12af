//! Files that say who may come in and what they may do: `AuthenticationConfiguration` and `AuthorizationConfiguration`
//! of `apiserver.config.k8s.io`.
//!
//! Here they are read as strictly as kube-apiserver reads them: what is not known is refused with its path. What a file
//! may say is the part of `authentication` and `authorization`; that it holds together, of their `…_validation`.

pub mod authentication;
pub mod authentication_validation;
pub mod authorization;
pub mod authorization_validation;

use std::{fmt, fs, io, path::Path};

use serde_json::Value;

use super::jwt::expression::ClaimExpressionError;
use crate::kinds::{FieldError, go_duration::go_duration};

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationFileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It has no text.
    #[error("empty config data")]
    Empty,
    /// It is not UTF-8, or no YAML.
    #[error("line {line} is not valid YAML")]
    Syntax {
        /// Counted from 1.
        line: u64,
    },
    /// Another kind of object.
    #[error("no kind {kind:?} is registered for version {version:?}")]
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
    #[error("{path}: {expected} is expected")]
    Type {
        /// The field.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
    /// What the field's types have not told.
    #[error(transparent)]
    Decode(#[from] serde_json::Error),
    /// An expression that is valid cannot be compiled.
    #[error(transparent)]
    Expression(#[from] ClaimExpressionError),
    /// What Kubernetes' validation says.
    #[error(transparent)]
    Invalid(#[from] InvalidFields),
}

/// All that is wrong with the fields of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidFields(pub Vec<FieldError>);

/// What may stand in a field.
#[derive(Clone, Copy)]
pub enum Shape {
    /// A text.
    Text,
    /// `true` or `false`.
    Bool,
    /// Such as `1m30s`.
    Duration,
    /// Any number of these.
    List(&'static Shape),
    /// These fields.
    Object(&'static [(&'static str, Shape)]),
}

/// A kind of file: its name, and what it may say beside kind and version.
pub struct FileKind {
    /// `AuthenticationConfiguration`
    pub kind: &'static str,
    /// By name.
    pub fields: &'static [(&'static str, Shape)],
}

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];

impl fmt::Display for InvalidFields {
    /// As Kubernetes shows several errors; each once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told: Vec<String> = Vec::new();
        for error in &self.0 {
            let error = format!("{}: {}", error.path, error.message);
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

impl InvalidFields {
    /// An error if there is any.
    pub fn refuse(errors: Vec<FieldError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }
}

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, ConfigurationFileError> {
    fs::read(path).map_err(|source| ConfigurationFileError::Read { path: path.display().to_string(), source })
}

impl FileKind {
    /// The fields of a file of this kind. Each has the type that it should have, and there are no others.
    pub fn parse(&self, bytes: &[u8]) -> Result<Value, ConfigurationFileError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let lines = before.iter().filter(|byte| **byte == b'\n').count();
            ConfigurationFileError::Syntax { line: (lines as u64).saturating_add(1) }
        })?;
        if text.trim().is_empty() {
            return Err(ConfigurationFileError::Empty);
        }
        let options = serde_yaml::options! {
            with_snippet: false,
            budget: serde_yaml::budget! { max_depth: 64, max_nodes: 500_000, max_documents: 1, },
        };
        let mut value = serde_yaml::from_str_with_options::<Value>(text, options).map_err(|error| {
            let line = error.without_snippet().location().map_or(1, |location| location.line());
            ConfigurationFileError::Syntax { line }
        })?;
        let named = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (named("apiVersion"), named("kind"));
        if kind != self.kind || !VERSIONS.contains(&&*version) {
            return Err(ConfigurationFileError::Kind { kind, version });
        }
        if let Some(fields) = value.as_object_mut() {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        let mut unknown = Vec::new();
        check(&value, "", Shape::Object(self.fields), &mut unknown)?;
        if unknown.is_empty() { Ok(value) } else { Err(ConfigurationFileError::Strict(unknown)) }
    }
}

/// Checks the types, and takes note of fields that are not known. A field may be null, which says nothing.
fn check(value: &Value, path: &str, shape: Shape, unknown: &mut Vec<String>) -> Result<(), ConfigurationFileError> {
    let wrong = |expected| Err(ConfigurationFileError::Type { path: path.to_owned(), expected });
    match (shape, value) {
        (_, Value::Null) | (Shape::Text, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => Ok(()),
        (Shape::Duration, Value::String(text)) if go_duration(text).is_ok() => Ok(()),
        (Shape::List(item), Value::Array(items)) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(at, value)| check(value, &format!("{path}[{at}]"), *item, unknown))
        }
        (Shape::Object(known), Value::Object(fields)) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.iter().find(|(known, _)| known == name) {
                    Some((_, shape)) => check(value, &path, *shape, unknown)?,
                    None => unknown.push(format!("unknown field {path:?}")),
                }
            }
            Ok(())
        }
        (Shape::Text, _) => wrong("a text"),
        (Shape::Bool, _) => wrong("true or false"),
        (Shape::Duration, _) => wrong("a duration such as 30s"),
        (Shape::List(_), _) => wrong("a list"),
        (Shape::Object(_), _) => wrong("an object"),
    }
}
