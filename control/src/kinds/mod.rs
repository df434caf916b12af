//! What each served kind *is*, as data: one file a kind, gathered in [`Kinds`].
//!
//! The machinery in `api` is written once against [`Kind`]; no handler knows a kind by name. A kind's file holds its names,
//! scope, subresources, table columns, defaults and validation, and nothing that does I/O.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use serde_json::Value;

use crate::schema::Schema;

pub mod access_review;
pub mod age;
pub mod certificate_signing_request;
pub mod config_map;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod field;
pub mod label_selector;
pub mod lease;
pub mod names;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_template;
pub mod port;
pub mod prepare;
pub mod quantity;
pub mod replica_set;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod superseded;

pub use age::Cell;
pub use field::{FieldError, FieldErrorReason};

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
    /// Where objects of this kind live.
    pub storage: Storage,
    /// Fills in what Kubernetes fills in for this kind. Idempotent.
    pub default: fn(object: &mut Value),
    /// Reasons why `new` may not be stored (in place of `old`, on update). Names, labels and annotations are checked for all
    /// kinds alike, elsewhere.
    pub validate: fn(new: &Value, old: Option<&Value>) -> Vec<FieldError>,
    /// Runs after `default`. What a create or update through the main resource does to `new` before it is validated: drop or keep `status`, bump
    /// `metadata.generation`, and so on (`PrepareForCreate`/`PrepareForUpdate` in Kubernetes).
    pub prepare: fn(new: &mut Value, old: Option<&Value>),
    /// Columns of `kubectl get`; `cells` answers in the same order.
    pub columns: &'static [Column],
    pub cells: fn(object: &Value) -> Vec<Cell>,
    /// Fields that `fieldSelector` may name beside `metadata.name` and `metadata.namespace`. Every key is always there, with an
    /// empty string where the object has no such field, so that `field=` and `field!=x` work and an unknown field is known.
    pub selectable: fn(object: &Value) -> BTreeMap<&'static str, String>,
    /// Name of its definition in the schema data: `io.k8s.api.core.v1.Pod`. See [`Kind::object_schema`].
    pub schema: &'static str,
}

/// Where objects of a kind live.
pub enum Storage {
    /// Under the kind's own group and plural.
    Stored,
    /// As objects of another kind: the same data under another name or an older version.
    As(&'static StoredAs),
    /// Nowhere: a request is answered and forgotten; only `create` is served.
    Virtual,
}

/// A kind whose objects are stored as another kind's.
pub struct StoredAs {
    pub kind: &'static Kind,
    /// Turns an object of the served kind into the stored one, `apiVersion` and `kind` included.
    pub to_stored: fn(object: &mut Value),
    /// The way back.
    pub from_stored: fn(object: &mut Value, served: &Kind),
    /// If every answer through the served kind is to warn of it.
    pub deprecation: Option<Deprecation>,
}

/// When Kubernetes deprecated a version and when it removed it: `v1.9+`.
pub struct Deprecation {
    pub since: &'static str,
    pub unavailable: &'static str,
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
    /// Of a Namespace: the only way to take names off `spec.finalizers`.
    Finalize,
}

/// One column of the Table form.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`.
    pub r#type: &'static str,
    /// OpenAPI format: `name` for the column of the name, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is shown always, 1 with `-o wide`.
    pub priority: i32,
}

impl Kind {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// What objects of this kind look like. An object of an unknown definition has metadata and free fields.
    pub fn object_schema(&self) -> Schema {
        Schema::builtin(self.schema).unwrap_or_else(Schema::unstructured)
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The kind whose data the store holds for this one: itself, but for kinds stored as another. `None` for virtual kinds.
    pub fn stored(&'static self) -> Option<&'static Kind> {
        match &self.storage {
            Storage::Stored => Some(self),
            Storage::As(other) => Some(other.kind),
            Storage::Virtual => None,
        }
    }

    /// The verbs that discovery names, in Kubernetes' (alphabetical) order.
    pub fn verbs(&self) -> &'static [&'static str] {
        match (&self.storage, self.kind) {
            (Storage::Virtual, _) => &["create"],
            // As in Kubernetes: namespaces are never deleted in bulk.
            (_, "Namespace") => &["create", "delete", "get", "list", "patch", "update", "watch"],
            _ => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

impl StoredAs {
    /// Text of the `Warning` header of every answer through `served`, without code and agent.
    pub fn warning(&self, served: &Kind) -> Option<String> {
        let Deprecation { since, unavailable } = self.deprecation.as_ref()?;
        let (old, new, kind) = (served.api_version(), self.kind.api_version(), self.kind.kind);
        Some(format!("{old} {kind} is deprecated in {since}, unavailable in {unavailable}; use {new} {kind}"))
    }
}

impl Subresource {
    /// The path segment.
    pub fn segment(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Proxy => "proxy",
            Self::Approval => "approval",
            Self::Finalize => "finalize",
        }
    }
}

impl Column {
    pub const fn name() -> Self {
        Self {
            name: "Name",
            r#type: "string",
            format: "name",
            description: "Name must be unique within a namespace. Is required when creating resources.",
            priority: 0,
        }
    }

    pub const fn age() -> Self {
        Self::text("Age", "Time since the object was created.")
    }

    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "string", format: "", description, priority: 0 }
    }

    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "integer", format: "", description, priority: 0 }
    }

    /// Shown with `-o wide` only.
    pub const fn wide(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "string", format: "", description, priority: 1 }
    }
}

/// All served kinds, with the ways to find one.
pub struct Kinds {
    /// In the order discovery shows them: by group, the preferred version first.
    all: Vec<&'static Kind>,
    by_path: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
    by_gvk: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
}

impl Kinds {
    /// Every kind this server serves.
    pub fn all() -> &'static Kinds {
        static ALL: LazyLock<Kinds> = LazyLock::new(|| {
            Kinds::of(&[
                &config_map::KIND,
                &endpoints::KIND,
                &event::CORE,
                &namespace::KIND,
                &node::KIND,
                &pod::KIND,
                &secret::KIND,
                &service_account::KIND,
                &service::KIND,
                &deployment::KIND,
                &replica_set::KIND,
                &superseded::APPS_V1BETA2_DEPLOYMENT,
                &superseded::APPS_V1BETA2_REPLICA_SET,
                &superseded::APPS_V1BETA1_DEPLOYMENT,
                &access_review::SELF_SUBJECT_REVIEW,
                &access_review::SELF_SUBJECT_ACCESS_REVIEW,
                &certificate_signing_request::KIND,
                &lease::KIND,
                &endpoint_slice::KIND,
                &event::EVENTS,
                &superseded::EXTENSIONS_V1BETA1_DEPLOYMENT,
                &superseded::EXTENSIONS_V1BETA1_REPLICA_SET,
            ])
        });
        &ALL
    }

    fn of(kinds: &[&'static Kind]) -> Self {
        Self {
            all: kinds.to_vec(),
            by_path: kinds.iter().map(|k| ((k.group, k.version, k.plural), *k)).collect(),
            by_gvk: kinds.iter().map(|k| ((k.group, k.version, k.kind), *k)).collect(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        self.all.iter().copied()
    }

    /// The kinds that have data of their own in the store: each object belongs to exactly one of these.
    pub fn stored(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        self.iter().filter(|k| matches!(k.storage, Storage::Stored))
    }

    /// `("apps", "v1", "deployments")`
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.by_path.get(&(group, version, plural)).copied()
    }

    /// `("apps", "v1", "Deployment")`
    pub fn by_gvk(&self, group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
        self.by_gvk.get(&(group, version, kind)).copied()
    }

    /// `("apps/v1", "Deployment")`, as an object or an owner reference says it.
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.by_gvk(group, version, kind)
    }
}

#[cfg(test)]
mod tests;
