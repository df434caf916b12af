//! The built-in kinds: the form in which a kind's file declares it, and the table of them all.
//!
//! A kind is added by one file, its `mod` line, and one line in [`TABLE`].

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Cell, Column, Deletion, Deprecation, FieldError, Kind, Naming, Storage, StoredAs, names, superseded, *};
use crate::schema::{Schema, SentEmpties};

/// Every kind that is served unless it is switched off. Within a group the preferred version stands first; the order of
/// groups means nothing, as discovery sorts them by their priority.
pub(super) const TABLE: &[&BuiltIn] = &[
    &component_status::KIND,
    &config_map::KIND,
    &endpoints::KIND,
    &event::CORE,
    &limit_range::KIND,
    &namespace::KIND,
    &node::KIND,
    &persistent_volume_claim::KIND,
    &persistent_volume::KIND,
    &pod::KIND,
    &pod_template::KIND,
    &replication_controller::KIND,
    &resource_quota::KIND,
    &secret::KIND,
    &binding::KIND,
    &service_account::KIND,
    &service::KIND,
    &controller_revision::KIND,
    &daemon_set::KIND,
    &deployment::KIND,
    &replica_set::KIND,
    &stateful_set::KIND,
    &superseded::APPS_V1BETA2_DEPLOYMENT,
    &superseded::APPS_V1BETA2_REPLICA_SET,
    &superseded::APPS_V1BETA1_DEPLOYMENT,
    &access_review::SELF_SUBJECT_REVIEW,
    &access_review::TOKEN_REVIEW,
    &access_review::LOCAL_SUBJECT_ACCESS_REVIEW,
    &access_review::SELF_SUBJECT_ACCESS_REVIEW,
    &access_review::SELF_SUBJECT_RULES_REVIEW,
    &access_review::SUBJECT_ACCESS_REVIEW,
    &horizontal_pod_autoscaler::V2,
    &horizontal_pod_autoscaler::V1,
    &cron_job::KIND,
    &job::KIND,
    &certificate_signing_request::KIND,
    &custom_resource_definition::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
    &networking::ingress::KIND,
    &networking::ingress_class::KIND,
    &ip_address::KIND,
    &networking::network_policy::KIND,
    &networking::service_cidr::KIND,
    &rbac::cluster_role_binding::KIND,
    &rbac::cluster_role::KIND,
    &rbac::role_binding::KIND,
    &rbac::role::KIND,
    &storage::csi_driver::KIND,
    &storage::csi_node::KIND,
    &storage::csi_storage_capacity::KIND,
    &storage::storage_class::KIND,
    &storage::volume_attachment::KIND,
    &storage::volume_attributes_class::KIND,
    &admissionregistration::mutating_webhook_configuration::KIND,
    &admissionregistration::validating_admission_policy::KIND,
    &admissionregistration::validating_admission_policy_binding::KIND,
    &admissionregistration::validating_webhook_configuration::KIND,
    &api_service::KIND,
    &flowcontrol::flow_schema::KIND,
    &flowcontrol::priority_level_configuration::KIND,
    &resource::device_class::KIND,
    &resource::resource_claim::KIND,
    &resource::resource_claim_template::KIND,
    &resource::resource_slice::KIND,
    &event::EVENTS,
    &runtime_class::KIND,
    &pod_disruption_budget::KIND,
    &priority_class::KIND,
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
    /// See [`Kind::naming`].
    pub naming: Naming,
    /// See [`Kind::bare_finalizers`].
    pub bare_finalizers: bool,
    /// See [`Kind::content_first`].
    pub content_first: fn(&Value) -> bool,
    /// See [`Kind::deletion`].
    pub deletion: Deletion,
    /// See [`Kind::default`].
    pub default: fn(object: &mut Value),
    /// See [`Kind::validate`].
    pub validate: fn(new: &Value, old: Option<&Value>) -> Vec<FieldError>,
    /// In place of `validate`, for a kind that tells what was sent empty from what was not sent.
    pub validate_sent: Option<ValidateSent>,
    /// See [`Kind::makes_paths_on_demand`].
    pub makes_paths_on_demand: bool,
    /// See [`Kind::prepare`].
    pub prepare: fn(new: &mut Value, old: Option<&Value>),
    /// In place of `prepare`, for a kind that asks what was sent.
    pub prepare_sent: Option<fn(new: &mut Value, old: Option<&Value>, sent: &Sent)>,
    /// See [`Kind::prepare_status`].
    pub prepare_status: fn(new: &mut Value, old: &Value),
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
    /// See [`Kind::updates_name_version`].
    pub updates_name_version: bool,
    /// See [`Kind::creates_on_update`].
    pub creates_on_update: bool,
    /// See [`Kind::warning`].
    pub warning: Option<&'static str>,
    /// Name of its definition in the schema data: `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
}

/// See [`BuiltIn::validate_sent`].
pub type ValidateSent = fn(new: &Value, old: Option<&Value>, empties: &SentEmpties) -> Vec<FieldError>;

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
        naming: Naming::Suffixed,
        bare_finalizers: false,
        content_first: |_| false,
        deletion: Deletion::PLAIN,
        default: |_| {},
        validate: |_, _| Vec::new(),
        validate_sent: None,
        makes_paths_on_demand: false,
        prepare: |_, _| {},
        prepare_sent: None,
        prepare_status: |_, _| {},
        columns: &[],
        cells: |_| Vec::new(),
        selectable: |_| BTreeMap::new(),
        indexed: &[],
        stored_field: |field| field,
        updates_name_version: false,
        creates_on_update: false,
        warning: None,
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
                Storage::Computed => Storage::Computed,
            },
            object_name: declared.object_name,
            naming: declared.naming,
            bare_finalizers: declared.bare_finalizers,
            content_first: declared.content_first,
            deletion: declared.deletion,
            default: Arc::new(declared.default),
            validate: match declared.validate_sent {
                Some(validate) => Arc::new(validate),
                None => Arc::new(|new, old, _| (declared.validate)(new, old)),
            },
            makes_paths_on_demand: declared.makes_paths_on_demand,
            prepare: match declared.prepare_sent {
                Some(prepare) => Arc::new(prepare),
                None => Arc::new(|new, old, _| (declared.prepare)(new, old)),
            },
            prepare_status: Arc::new(declared.prepare_status),
            columns: declared.columns.into(),
            cells: Arc::new(declared.cells),
            selectable: Arc::new(move |object| {
                selectable(object).into_iter().map(|(field, value)| (field.into(), value)).collect()
            }),
            indexed: declared.indexed.into(),
            stored_field: declared.stored_field,
            updates_name_version: declared.updates_name_version,
            creates_on_update: declared.creates_on_update,
            warning: declared.warning.map(Cow::Borrowed),
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
            from_stored: Arc::new(|object, served| {
                (declared.from_stored)(object, served);
                served.schema.write_zeros(object);
            }),
            deprecation: declared.deprecation,
        }
    }
}
