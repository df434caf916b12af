//! What each served kind *is*, as data: one file a kind, gathered in [`Kinds`].
//!
//! The machinery in `api` is written once against [`Kind`]; no handler knows a kind by name. A kind's file holds its names,
//! scope, subresources, table columns, defaults, validation and merge keys, and nothing that does I/O.

use std::collections::BTreeMap;

use serde_json::Value;

/// One served kind at one version. `'static` data and plain functions, so that it can stand in a table.
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    /// `Pod`
    pub kind: &'static str,
    /// `pods`: the path segment and the key prefix in the store.
    pub plural: &'static str,
    /// `pod`
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    /// `all` makes `kubectl get all` list it.
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub subresources: &'static [Subresource],
    /// Checks JSON text against the kind's schema in one pass: types, unknown fields, duplicate fields.
    pub decode: fn(json: &[u8]) -> Result<Vec<FieldWarning>, DecodeError>,
    /// Fills in what Kubernetes fills in for this kind. Idempotent.
    pub default: fn(object: &mut Value),
    /// Reasons why `new` may not be stored (in place of `old`, on update). Names, labels and annotations are checked for all
    /// kinds alike, elsewhere.
    pub validate: fn(new: &Value, old: Option<&Value>) -> Vec<FieldError>,
    /// What a create or update through the main resource does to `new` before it is validated: drop or keep `status`, bump
    /// `metadata.generation`, and so on (`PrepareForCreate`/`PrepareForUpdate` in Kubernetes).
    pub prepare: fn(new: &mut Value, old: Option<&Value>),
    /// Columns of `kubectl get`; the first is `Name`, and `cells` answers in the same order.
    pub columns: &'static [Column],
    pub cells: fn(object: &Value) -> Vec<Value>,
    /// Fields that `fieldSelector` may name beside `metadata.name` and `metadata.namespace`.
    pub selectable: fn(object: &Value) -> BTreeMap<&'static str, String>,
    /// Path in the OpenAPI definitions: `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    Status,
    Scale,
    Binding,
    Eviction,
    Log,
    Proxy,
    Approval,
}

/// One column of the Table form.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`.
    pub r#type: &'static str,
    /// OpenAPI format: `name` for the first column, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is shown always, 1 with `-o wide`.
    pub priority: i32,
}

/// A field that is in the text but not in the schema, or there twice. An error under `fieldValidation=Strict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldWarning {
    Unknown { path: String },
    Duplicate { path: String },
}

/// The text is not an object of this kind.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DecodeError {
    /// `spec.containers[0].ports[0].containerPort`; empty where the text is not JSON at all.
    pub path: String,
    pub message: String,
}

/// One cause of an `Invalid` Status, spelled as Kubernetes spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub path: String,
    pub reason: FieldErrorReason,
    pub message: String,
}

/// `StatusCause.reason` of a field error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorReason {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
}
