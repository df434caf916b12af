//! What each served kind *is*, as data: one file per kind, gathered in [`Kinds`].
//!
//! The machinery in `api` is written once against [`Kind`]; no handler knows a kind by name. A kind's file holds its
//! names, scope, subresources, table columns, defaults and validation, and nothing that does I/O.
//!
//! - [`BuiltIn`]: a kind of this program, declared as a constant in a file of its own and named in the table of
//!   `built_in.rs`.
//! - [`Kind`]: a kind while the program runs, made from a [`BuiltIn`] or, for a custom resource, from data.
//! - [`Kinds`]: all kinds at one moment, never changed.
//! - [`Registry`]: where the current [`Kinds`] are found, replaced when a kind is added or removed, and subscribed to.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    custom::Custom,
    schema::{Schema, SentEmpties, Types},
};

pub mod access_review;
pub mod admissionregistration;
pub mod age;
pub mod api_service;
pub mod api_version;
pub mod binding;
pub mod built_in;
pub mod certificate_signing_request;
pub mod cidr;
pub mod column;
pub mod component_status;
pub mod condition;
pub mod config_map;
pub mod controller_revision;
pub mod cron_job;
pub mod cron_schedule;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deletion;
pub mod deployment;
pub mod derived;
pub mod endpoint_slice;
pub mod endpoints;
pub mod error_budget;
pub mod event;
pub mod field;
pub mod flowcontrol;
pub mod go_duration;
pub mod group_priority;
pub mod horizontal_pod_autoscaler;
pub mod int_or_percent;
pub mod ip;
pub mod ip_address;
pub mod job;
pub mod label_selector;
pub mod lease;
pub mod limit_range;
pub mod names;
pub mod namespace;
pub mod naming;
pub mod networking;
pub mod node;
pub mod paths_on_demand;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_disruption_budget;
pub mod pod_template;
pub mod port;
pub mod prepare;
pub mod priority_class;
pub mod protection_finalizer;
pub mod quantity;
pub mod rbac;
pub mod reading;
pub mod registry;
pub mod replica_set;
pub mod replication_controller;
pub mod resource;
pub mod resource_name;
pub mod resource_quota;
pub mod runtime_class;
pub mod secret;
mod sent;
pub mod service;
pub mod service_account;
pub mod snapshot;
pub mod stateful_set;
pub mod storage;
pub mod superseded;
pub mod volume_source;
pub mod workload;

pub use age::Cell;
pub use built_in::{BuiltIn, BuiltInAs};
pub use column::Column;
pub use deletion::Deletion;
pub use derived::Derived;
pub use field::{FieldError, FieldErrorReason};
pub use naming::Naming;
pub use registry::{AddError, Registry};
pub use sent::Sent;
pub use snapshot::Kinds;

/// The fields of an object that `fieldSelector` may name, with their values.
pub type SelectableFields = BTreeMap<Cow<'static, str>, String>;

/// One served kind at one version.
///
/// Names are `Cow`: those of built-in kinds are constants, those of custom kinds come from a client. Functions are
/// closures, so that those of a custom kind can hold its schema.
pub struct Kind {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// `v1`
    pub version: Cow<'static, str>,
    /// `Pod`
    pub kind: Cow<'static, str>,
    /// `pods`: the path segment and the key prefix in the store.
    pub plural: Cow<'static, str>,
    /// `pod`
    pub singular: Cow<'static, str>,
    /// `po`
    pub short_names: Vec<Cow<'static, str>>,
    /// `all` makes `kubectl get all` list it.
    pub categories: Vec<Cow<'static, str>>,
    /// Whether each object belongs to a namespace.
    pub namespaced: bool,
    /// Path segments of its subresources: `status`. What each does is written in `api::subresource`.
    pub subresources: Vec<Cow<'static, str>>,
    /// Where objects of this kind live.
    pub storage: Storage,
    /// Why a text cannot be the name of an object of this kind; nothing if it can.
    pub object_name: fn(&str) -> Vec<String>,
    /// How an object without a name gets one.
    pub naming: Naming,
    /// Whether finalizers need no prefix, although those of other kinds in the group do.
    pub bare_finalizers: bool,
    /// Whether what is wrong with this object's content is told alone, and its metadata looked at only when the content
    /// is right.
    pub content_first: fn(&Value) -> bool,
    /// What deletion means for the kind.
    pub deletion: Deletion,
    /// Fills in what Kubernetes fills in for this kind. Idempotent.
    pub default: DefaultFn,
    /// Reasons why `new` may not be stored (in place of `old`, on update), given what was sent empty. Names, labels and
    /// annotations are checked for all kinds alike, elsewhere.
    pub validate: ValidateFn,
    /// Whether `validate` runs without paths first (see [`paths_on_demand`]): for a kind with many objects, and with
    /// checks that cost less than their paths. Checks that compile rules, or decide by paths, are not asked twice.
    pub makes_paths_on_demand: bool,
    /// Runs after `default`. What a create or update through the main resource, of what was sent, does to `new` before
    /// it is validated: drop or keep `status`, bump `metadata.generation`, and so on
    /// (`PrepareForCreate`/`PrepareForUpdate` in Kubernetes).
    pub prepare: PrepareFn,
    /// What a write through `/status` does to `new`, given the stored `old`, before it is validated.
    pub prepare_status: PrepareStatusFn,
    /// Columns of `kubectl get`; `cells` answers in the same order.
    pub columns: Cow<'static, [Column]>,
    /// The cells of an object's row, one for each column.
    pub cells: CellsFn,
    /// Fields that `fieldSelector` may name beside `metadata.name` and `metadata.namespace`. Every key is always
    /// there, with an empty string where the object has no such field, so that `field=` and `field!=x` work and an
    /// unknown field is known.
    pub selectable: SelectableFn,
    /// Selectable fields by which objects are found without a look at the others. Named as the stored kind names them.
    pub indexed: Cow<'static, [Cow<'static, str>]>,
    /// The stored kind's name of a selectable field.
    pub stored_field: fn(&str) -> &str,
    /// Whether a `PUT` must say which version of the object it replaces.
    pub updates_name_version: bool,
    /// Whether a `PUT` of an object that is not there creates it (`AllowCreateOnUpdate` in Kubernetes).
    pub creates_on_update: bool,
    /// What every answer about the kind warns of, without code and agent.
    pub warning: Option<Cow<'static, str>>,
    /// What its objects look like: decoding, merging, protobuf and OpenAPI go by it.
    pub schema: Schema,
    /// What it has because a CustomResourceDefinition made it; `None` for built-in kinds.
    pub custom: Option<Arc<Custom>>,
}

/// See [`Kind::default`].
pub type DefaultFn = Arc<dyn Fn(&mut Value) + Send + Sync>;
/// See [`Kind::validate`].
pub type ValidateFn = Arc<dyn Fn(&Value, Option<&Value>, &SentEmpties) -> Vec<FieldError> + Send + Sync>;
/// See [`Kind::prepare`].
pub type PrepareFn = Arc<dyn Fn(&mut Value, Option<&Value>, &Sent) + Send + Sync>;
/// See [`Kind::prepare_status`].
pub type PrepareStatusFn = Arc<dyn Fn(&mut Value, &Value) + Send + Sync>;
/// See [`Kind::cells`].
pub type CellsFn = Arc<dyn Fn(&Value) -> Vec<Cell> + Send + Sync>;
/// See [`Kind::selectable`].
pub type SelectableFn = Arc<dyn Fn(&Value) -> SelectableFields + Send + Sync>;

/// See [`StoredAs::to_stored`].
pub type ToStoredFn = Arc<dyn Fn(&mut Value) + Send + Sync>;
/// See [`StoredAs::from_stored`].
pub type FromStoredFn = Arc<dyn Fn(&mut Value, &Kind) + Send + Sync>;

/// Where objects of a kind live. `As` says of which other kind.
#[derive(Clone)]
pub enum Storage<As = Arc<StoredAs>> {
    /// Under the kind's own group and plural.
    Stored,
    /// As objects of another kind: the same data under another name or an older version.
    As(As),
    /// Nowhere: a request is answered and forgotten; only `create` is served.
    Virtual,
    /// Nowhere: objects are made when they are read, and only `get` and `list` are served.
    Computed,
}

/// How a kind's objects are stored as another kind's.
pub struct StoredAs {
    /// The kind that they are stored as.
    pub kind: Arc<Kind>,
    /// Turns an object of the served kind into the stored one, `apiVersion` and `kind` included.
    pub to_stored: ToStoredFn,
    /// The way back.
    pub from_stored: FromStoredFn,
    /// If every answer through the served kind is to warn of it.
    pub deprecation: Option<Deprecation>,
}

/// When Kubernetes deprecated a version and when it removed it: `v1.9+`.
#[derive(Clone, Copy, Debug)]
pub struct Deprecation {
    /// The release that deprecated it.
    pub since: &'static str,
    /// The release that no longer served it.
    pub unavailable: &'static str,
}

impl Kind {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `PodList`; of a custom kind, what its definition calls it.
    pub fn list_kind(&self) -> Cow<'_, str> {
        match &self.custom {
            Some(custom) => Cow::Borrowed(&custom.list_kind),
            None => Cow::Owned(format!("{}List", self.kind)),
        }
    }

    /// `pods`, `deployments.apps`
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether the kind is one of Kubernetes' own, whose objects have a protobuf form; custom resources have none.
    pub fn is_built_in(&self) -> bool {
        let types = Types::builtin();
        Arc::ptr_eq(self.schema.types(), types)
            && types.of_kind(&self.api_version(), &self.kind) == Some(self.schema.root())
    }

    /// Whether the kind has the subresource with this path segment.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|segment| segment == subresource)
    }

    /// The kind whose data the store holds for this one: itself, but for kinds stored as another. `None` for those that
    /// are not stored.
    pub fn stored(self: &Arc<Self>) -> Option<&Arc<Self>> {
        match &self.storage {
            Storage::Stored => Some(self),
            Storage::As(other) => Some(&other.kind),
            Storage::Virtual | Storage::Computed => None,
        }
    }

    /// The verbs that discovery names, in Kubernetes' (alphabetical) order.
    pub fn verbs(&self) -> &'static [&'static str] {
        match (&self.storage, self.deletion.bulk) {
            (Storage::Virtual, _) => &["create"],
            (Storage::Computed, _) => &["get", "list"],
            (_, false) => &["create", "delete", "get", "list", "patch", "update", "watch"],
            (_, true) => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

impl StoredAs {
    /// The release from which on Kubernetes does not serve the kind any more: `1.16`.
    pub fn removed_release(&self) -> Option<&str> {
        Some(self.deprecation.as_ref()?.unavailable.trim_start_matches('v').trim_end_matches('+'))
    }

    /// Text of the `Warning` header of every answer through `served`, without code and agent.
    pub fn warning(&self, served: &Kind) -> Option<String> {
        let Deprecation { since, unavailable } = self.deprecation.as_ref()?;
        let (old, new, kind) = (served.api_version(), self.kind.api_version(), &self.kind.kind);
        Some(format!("{old} {kind} is deprecated in {since}, unavailable in {unavailable}; use {new} {kind}"))
    }
}

#[cfg(test)]
mod discovery_facts;
#[cfg(test)]
mod tests;
