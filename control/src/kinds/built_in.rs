//! The built-in kinds: the form in which a kind's file declares it, and the table of them all.
//!
//! A kind is added by one file and one line in [`TABLE`].

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    Cell, Column, Deletion, Deprecation, FieldError, Kind, Storage, StoredAs, access_review,
    certificate_signing_request, config_map, custom_resource_definition, deployment, endpoint_slice, endpoints, event,
    ip_address, lease, names, namespace, node, pod, replica_set, secret, service, service_account, superseded,
};
use crate::schema::Schema;

/// Every built-in kind, in the order discovery shows them: by group, the preferred version first.
pub(super) const TABLE: &[&BuiltIn] = &[
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
    &custom_resource_definition::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
    &ip_address::KIND,
    &event::EVENTS,
    &superseded::EXTENSIONS_V1BETA1_DEPLOYMENT,
    &superseded::EXTENSIONS_V1BETA1_REPLICA_SET,
];

/// A built-in kind as its file declares it: constants and plain functions. The fields are those of [`Kind`].
pub struct BuiltIn {
    /// See [`Kind::group`].
    pub group: &'static str,
    /// See [`Kind::version`].
    pub version: &'static str,
    /// See [`Kind::kind`].
    pub kind: &'static str,
    /// See [`Kind::plural`].
    pub plural: &'static str,
    /// See [`Kind::singular`].
    pub singular: &'static str,
    /// See [`Kind::short_names`].
    pub short_names: &'static [&'static str],
    /// See [`Kind::categories`].
    pub categories: &'static [&'static str],
    /// See [`Kind::namespaced`].
    pub namespaced: bool,
    /// See [`Kind::subresources`].
    pub subresources: &'static [&'static str],
    /// See [`Kind::storage`].
    pub storage: Storage<&'static BuiltInAs>,
    /// See [`Kind::object_name`].
    pub object_name: fn(&str) -> Vec<String>,
    /// See [`Kind::deletion`].
    pub deletion: Deletion,
    /// See [`Kind::default`].
    pub default: fn(object: &mut Value),
    /// See [`Kind::validate`].
    pub validate: fn(new: &Value, old: Option<&Value>) -> Vec<FieldError>,
    /// See [`Kind::prepare`].
    pub prepare: fn(new: &mut Value, old: Option<&Value>),
    /// See [`Kind::columns`].
    pub columns: &'static [Column],
    /// See [`Kind::cells`].
    pub cells: fn(object: &Value) -> Vec<Cell>,
    /// See [`Kind::selectable`].
    pub selectable: fn(object: &Value) -> BTreeMap<&'static str, String>,
    /// See [`Kind::indexed`].
    pub indexed: &'static [Cow<'static, str>],
    /// See [`Kind::stored_field`].
    pub stored_field: fn(&str) -> &str,
    /// Name of its definition in the schema data: `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
}

/// A built-in kind's [`StoredAs`].
pub struct BuiltInAs {
    /// See [`StoredAs::kind`].
    pub kind: &'static BuiltIn,
    /// See [`StoredAs::to_stored`].
    pub to_stored: fn(object: &mut Value),
    /// See [`StoredAs::from_stored`].
    pub from_stored: fn(object: &mut Value, served: &Kind),
    /// See [`StoredAs::deprecation`].
    pub deprecation: Option<Deprecation>,
}

impl BuiltIn {
    /// What most kinds have in common. A kind names all fields but those it shares.
    pub const PLAIN: Self = Self {
        group: "",
        version: "v1",
        kind: "",
        plural: "",
        singular: "",
        short_names: &[],
        categories: &[],
        namespaced: true,
        subresources: &[],
        storage: Storage::Stored,
        object_name: names::subdomain,
        deletion: Deletion::PLAIN,
        default: |_| {},
        validate: |_, _| Vec::new(),
        prepare: |_, _| {},
        columns: &[],
        cells: |_| Vec::new(),
        selectable: |_| BTreeMap::new(),
        indexed: &[],
        stored_field: |field| field,
        schema: "",
    };
}

impl From<&'static BuiltIn> for Kind {
    fn from(declared: &'static BuiltIn) -> Self {
        let texts = |list: &'static [&'static str]| list.iter().map(|text| Cow::Borrowed(*text)).collect();
        let selectable = declared.selectable;
        Self {
            group: declared.group.into(),
            version: declared.version.into(),
            kind: declared.kind.into(),
            plural: declared.plural.into(),
            singular: declared.singular.into(),
            short_names: texts(declared.short_names),
            categories: texts(declared.categories),
            namespaced: declared.namespaced,
            subresources: texts(declared.subresources),
            storage: match &declared.storage {
                Storage::Stored => Storage::Stored,
                Storage::As(other) => Storage::As(Arc::new(StoredAs::from(*other))),
                Storage::Virtual => Storage::Virtual,
            },
            object_name: declared.object_name,
            deletion: declared.deletion,
            default: Arc::new(declared.default),
            validate: Arc::new(declared.validate),
            prepare: Arc::new(declared.prepare),
            columns: declared.columns.into(),
            cells: Arc::new(declared.cells),
            selectable: Arc::new(move |object| {
                selectable(object).into_iter().map(|(field, value)| (field.into(), value)).collect()
            }),
            indexed: declared.indexed.into(),
            stored_field: declared.stored_field,
            schema: Schema::builtin(declared.schema).unwrap_or_else(Schema::unstructured),
            custom: None,
        }
    }
}

impl From<&'static BuiltInAs> for StoredAs {
    fn from(declared: &'static BuiltInAs) -> Self {
        Self {
            kind: Arc::new(Kind::from(declared.kind)),
            to_stored: Arc::new(declared.to_stored),
            from_stored: Arc::new(declared.from_stored),
            deprecation: declared.deprecation,
        }
    }
}
