//! Manifests: the objects that files, directories and standard input hold, each with the place it came from.
//!
//! A broken document stops none of the others: every one is either an object or an error that names file, document and
//! line.

mod document;
mod source;

use serde_json::Value;

pub use document::{Problem, parse};
pub use source::{FileArgs, read};

/// Where a document stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// As the user named it; `standard input` for `-`.
    pub file: String,
    /// Counted from 1, within the file.
    pub document: usize,
    /// Line of the file where the document begins, counted from 1.
    pub line: u64,
}

impl Location {
    /// `error when creating "web.yaml"`, with the document where there may be several.
    pub fn error_prefix(&self, what: &str) -> String {
        match self.document {
            1 => format!("error when {what} \"{}\"", self.file),
            n => format!("error when {what} \"{}\" (document {n})", self.file),
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: document {}, line {}", self.file, self.document, self.line)
    }
}

/// One object to create, apply or delete. Has `apiVersion`, `kind` and a name or `generateName`.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Where it was read, for messages.
    pub location: Location,
    /// As it was written: nothing is filled in.
    pub object: Value,
}

impl Manifest {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    /// `Service`
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// Empty where only `generateName` is set.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The namespace that the manifest names; `None` where it names none, or an empty one.
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty())
    }
}
