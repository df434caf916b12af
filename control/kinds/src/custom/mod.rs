//! Custom resources: kinds that come from the data of a CustomResourceDefinition.
//!
//! ```text
//!   definition (stored) ──Definition::read──▶ Definition ──kinds──▶ Kind per version ──▶ Registry
//!        ▲   naming: which names it gets          │
//!        │   conditions: Established, …           └─▶ Structural: pruning, defaulting, validate, rules (CEL), columns
//!   controller: names, serves, re-reads stored objects, deletes them with their definition
//! ```
//!
//! - **definition**: a CustomResourceDefinition; `definition/` reads, defaults, validates and names it.
//! - **structural schema**: what objects look like (`structural/`). `crate::schema` makes the types of decoding of it.
//! - **rules**: `x-kubernetes-validations`, written in CEL (`crate::cel`).
//! - **storage version**: the version in which objects are stored; the others are [`crate::kinds::Storage::As`] it.
//! - **conversion**: how an object of one version becomes one of another: by its `apiVersion` alone, or by a webhook.
//!
//! How to inspect it: the conditions of a definition; the log of the task `custom-resource-definitions`.

pub mod columns;
pub mod definition;
pub mod json_path;
pub mod kinds;
pub mod openapi;
pub mod rules;
pub mod structural;
pub mod validate;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use crate::status::Status;

/// What a kind has because a definition made it.
#[derive(Debug)]
pub struct Custom {
    /// Name of the definition: `widgets.example.com`.
    pub definition: Arc<str>,
    /// The kind of its lists.
    pub list_kind: String,
    /// What every answer warns of, if the version is deprecated.
    pub warning: Option<String>,
    /// Where `/scale` finds its numbers.
    pub scale: Option<definition::Scale>,
    /// Its schema as OpenAPI v3 and v2 publish it.
    pub openapi: [Value; 2],
    /// Converts its objects where `apiVersion` is not all that changes.
    pub webhook: Option<Arc<dyn WebhookConversion>>,
}

/// Converts the objects of one definition by its webhook.
#[async_trait]
pub trait WebhookConversion: fmt::Debug + Send + Sync {
    /// Makes `object` one of `version` (`example.com/v1`), if the read that runs on this thread was given it; otherwise
    /// notes that the read lacks it.
    fn convert_now(&self, object: &mut Value, version: &str);

    /// Converts objects to `version`. Those that are of it already stay as they are.
    async fn convert(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, Status>;

    /// The same for reads: what was made of an object is kept, for others want to read it, too.
    async fn convert_shared(&self, objects: Vec<Value>, version: &str) -> Result<Vec<Value>, Status>;
}
