//! From a definition to the kinds that serve it: one for each served version.
//!
//! The storage version's kind is stored; each other one is stored as it. Defaults and validation are those of the
//! version that a request names: a version that is stored as another has a stored kind of its own, which looks at its
//! objects as the version sees them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Custom, WebhookConversion, columns,
    definition::{Conversion, Definition, Scale, Version},
    json_path::JsonPath,
    openapi,
    rules::{RuleScope, Rules},
    structural::{Structural, defaulting, pruning},
    validate,
};
use crate::{
    kinds::{
        BuiltIn, DefaultFn, Deletion, FieldError, FieldErrorReason, FromStoredFn, Kind, PrepareFn, SelectableFn,
        Storage, StoredAs, ToStoredFn, ValidateFn, names,
    },
    schema::Schema,
};

/// The kinds of an established definition, the preferred version first. Empty if it has no storage version.
///
/// With a webhook and `mixed`, some stored objects are of another version than the storage version, and every read
/// looks which.
pub fn of(definition: &Definition, webhook: Option<&Arc<dyn WebhookConversion>>, mixed: bool) -> Vec<Kind> {
    let Some(storage) = definition.storage_version() else { return Vec::new() };
    let webhook = webhook.filter(|_| matches!(definition.conversion, Conversion::Webhook(_)));
    let mut served: Vec<&Version> = definition.versions.iter().filter(|version| version.served).collect();
    served.sort_by(|a, b| priority(&b.name).cmp(&priority(&a.name)).then_with(|| a.name.cmp(&b.name)));
    let kind = |version: &Version| {
        let rules = VersionRules::new(version);
        let own = kind(definition, version, &rules, webhook);
        if version.storage && !mixed {
            return own;
        }
        let stored = Arc::new(stored_kind(definition, storage, version, &rules, webhook));
        let (to_stored, from_stored) = conversions(definition, storage, version, webhook);
        let stored_as = StoredAs { kind: stored, to_stored, from_stored, deprecation: None };
        Kind { storage: Storage::As(Arc::new(stored_as)), ..own }
    };
    served.into_iter().map(kind).collect()
}

/// The kind of the storage version, by which stored objects are read, whether it is served or not.
pub fn stored(definition: &Definition) -> Option<Kind> {
    let storage = definition.storage_version()?;
    Some(kind(definition, storage, &VersionRules::new(storage), None))
}

/// A stored object as its storage version's schema is now: unknown fields go, new defaults come.
pub fn reread(definition: &Definition, object: &mut Value) {
    let Some(storage) = definition.storage_version() else { return };
    pruning::prune(object, &storage.schema, true);
    defaulting::default(object, &storage.schema);
}

/// Kubernetes' order of versions: stable before beta before alpha, higher numbers first, then all others. The greater
/// comes first.
///
/// Source: `apimachinery/pkg/version/helpers.go`.
pub fn priority(version: &str) -> (u8, u64, u64) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..end].parse().ok()?;
        match &rest[end..] {
            "" => Some((3, major, 0)),
            rest => {
                let stable = [("beta", 2), ("alpha", 1)].into_iter();
                let mut found = stable.filter_map(|(word, rank)| Some((rank, rest.strip_prefix(word)?)));
                let (rank, minor) = found.next()?;
                Some((rank, major, minor.parse().ok()?))
            }
        }
    };
    parse().unwrap_or_default()
}

/// What a version's objects must be like, shared by its kinds.
#[derive(Clone)]
struct VersionRules(Arc<Inner>);

struct Inner {
    schema: Structural,
    rules: Option<Rules>,
    scale: Option<Scale>,
}

impl VersionRules {
    fn new(version: &Version) -> Self {
        let schema = version.schema.clone();
        let rules = RuleScope::of(&schema, true).map(|scope| scope.compile(&schema)).filter(|rules| !rules.is_empty());
        Self(Arc::new(Inner { schema, rules, scale: version.scale.clone() }))
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let Inner { schema, rules, scale, .. } = &*self.0;
        let mut errors = validate::object(schema, new, old);
        errors.extend(scale.iter().flat_map(|scale| of_scale(scale, new)));
        errors.extend(validate::embedded::check("", schema, new));
        if old.is_none_or(|old| validate::list_types::check("", schema, old).is_empty()) {
            errors.extend(validate::list_types::check("", schema, new));
        }
        let Some(rules) = rules else { return errors };
        if errors.iter().any(|error| is_blocking(error.reason)) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing \
            errors to complete validation";
            errors.push(FieldError::invalid("<nil>", &Value::Null, why));
        } else {
            let mut budget = crate::cel::OBJECT_BUDGET;
            errors.extend(rules.validate("", new, old, &mut budget));
        }
        errors
    }
}

/// Whether rules are not even looked at: an object of another shape could be anything to them.
fn is_blocking(reason: FieldErrorReason) -> bool {
    use FieldErrorReason::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(reason, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

fn of_scale(scale: &Scale, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for path in [&scale.spec_replicas, &scale.status_replicas] {
        let found = at(object, path);
        let Some(value) = found.filter(|value| !value.is_null()) else { continue };
        match value.as_i64() {
            None => {
                let shown = path.trim_start_matches('.');
                let why = format!("{shown} accessor error: {value} is of the wrong type, expected int64");
                errors.push(FieldError::invalid(path, &json!(0), why));
            }
            Some(count) if count < 0 => {
                errors.push(FieldError::invalid(path, value, "should be a non-negative integer"));
            }
            Some(count) if count > i64::from(i32::MAX) => {
                let why = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(path, value, why));
            }
            Some(_) => {}
        }
    }
    if let Some(path) = &scale.label_selector
        && let Some(value) = at(object, path).filter(|value| !value.is_string() && !value.is_null())
    {
        let shown = path.trim_start_matches('.');
        let why = format!("{shown} accessor error: {value} is of the wrong type, expected string");
        errors.push(FieldError::invalid(path, &json!(""), why));
    }
    errors
}

/// The value at a dotted path: `.spec.replicas`.
pub fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    path.trim_start_matches('.').split('.').try_fold(object, |value, name| value.get(name))
}

fn kind(
    definition: &Definition,
    version: &Version,
    rules: &VersionRules,
    webhook: Option<&Arc<dyn WebhookConversion>>,
) -> Kind {
    let names = &definition.accepted;
    let own = |text: &str| text.to_owned().into();
    let texts = |list: &[String]| list.iter().map(|text| own(text)).collect();
    let subresources = [("status", version.has_status), ("scale", version.scale.is_some())];
    let subresources = subresources.into_iter().filter(|(_, has)| *has).map(|(segment, _)| segment.into());
    let name = openapi::definition_name(&definition.group, &version.name, &names.kind);
    let custom = Custom {
        definition: definition.name.as_str().into(),
        list_kind: match names.list_kind.as_str() {
            "" => format!("{}List", names.kind),
            name => name.to_owned(),
        },
        warning: version.warning.clone(),
        scale: version.scale.clone(),
        openapi: [openapi::v3(&version.schema_text), openapi::v2(&version.schema_text)],
        webhook: webhook.cloned(),
    };
    Kind {
        group: own(&definition.group),
        version: own(&version.name),
        kind: own(&names.kind),
        plural: own(&names.plural),
        singular: own(&names.singular),
        short_names: texts(&names.short_names),
        categories: texts(&names.categories),
        namespaced: definition.namespaced,
        subresources: subresources.collect(),
        storage: Storage::Stored,
        object_name: names::subdomain,
        naming: BuiltIn::PLAIN.naming,
        bare_finalizers: true,
        content_first: BuiltIn::PLAIN.content_first,
        deletion: Deletion::PLAIN,
        default: default(rules),
        validate: validation(rules, None),
        makes_paths_on_demand: BuiltIn::PLAIN.makes_paths_on_demand,
        prepare: prepare(version.has_status),
        prepare_status: Arc::new(BuiltIn::PLAIN.prepare_status),
        columns: columns::columns(version).into(),
        cells: columns::cells(version),
        selectable: selectable(&version.selectable),
        indexed: BuiltIn::PLAIN.indexed.into(),
        stored_field: |field| field,
        updates_name_version: true,
        creates_on_update: false,
        warning: custom.warning.clone().map(Into::into),
        schema: Schema::custom(&name, &version.schema),
        custom: Some(Arc::new(custom)),
    }
}

/// The storage version's kind as a request through `version` uses it.
fn stored_kind(
    definition: &Definition,
    storage: &Version,
    version: &Version,
    rules: &VersionRules,
    webhook: Option<&Arc<dyn WebhookConversion>>,
) -> Kind {
    let stored = kind(definition, storage, &VersionRules::new(storage), webhook);
    let served_as = format!("{}/{}", definition.group, version.name);
    // What a webhook makes of an object is stored as it is: the object itself was checked as it came.
    let (default, validate): (DefaultFn, ValidateFn) = match webhook {
        Some(_) => (Arc::new(|_: &mut Value| {}), Arc::new(|_, _, _| Vec::new())),
        None => (default(rules), validation(rules, Some(served_as))),
    };
    Kind { default, validate, prepare: prepare(version.has_status), ..stored }
}

fn default(rules: &VersionRules) -> DefaultFn {
    let rules = rules.clone();
    Arc::new(move |object| defaulting::default(object, &rules.0.schema))
}

/// Validates objects as this version, which is what they are called then.
fn validation(rules: &VersionRules, served_as: Option<String>) -> ValidateFn {
    let rules = rules.clone();
    Arc::new(move |new, old, _| match &served_as {
        None => rules.validate(new, old),
        Some(version) => {
            let named = |object: &Value| {
                let mut object = object.clone();
                object["apiVersion"] = version.as_str().into();
                object
            };
            rules.validate(&named(new), old.map(named).as_ref())
        }
    })
}

/// The status is the subresource's, if there is one; all that is not metadata counts as a generation.
fn prepare(has_status: bool) -> PrepareFn {
    Arc::new(move |new, old, _| {
        let Some(object) = new.as_object_mut() else { return };
        if has_status {
            match old.and_then(|old| old.get("status")) {
                Some(status) => drop(object.insert("status".into(), status.clone())),
                None => drop(object.shift_remove("status")),
            }
        }
        let generation = match old {
            None => 1,
            Some(old) => {
                let counted = old["metadata"]["generation"].as_i64().unwrap_or(0);
                let content = |object: &Value| {
                    let mut object = object.clone();
                    if let Some(map) = object.as_object_mut() {
                        map.shift_remove("metadata");
                        map.shift_remove("apiVersion");
                        map.shift_remove("kind");
                    }
                    object
                };
                if content(new) == content(old) { counted } else { counted.saturating_add(1) }
            }
        };
        if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("generation".into(), generation.into());
        }
    })
}

fn selectable(paths: &[String]) -> SelectableFn {
    let fields: Vec<(String, Option<JsonPath>)> =
        paths.iter().map(|path| (path.trim_start_matches('.').to_owned(), JsonPath::parse(path))).collect();
    Arc::new(move |object| {
        let value =
            |path: &Option<JsonPath>| match path.as_ref().and_then(|path| path.select(object).into_iter().next()) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
        fields.iter().map(|(name, path)| (name.clone().into(), value(path))).collect()
    })
}

fn conversions(
    definition: &Definition,
    storage: &Version,
    version: &Version,
    webhook: Option<&Arc<dyn WebhookConversion>>,
) -> (ToStoredFn, FromStoredFn) {
    let stored_as = format!("{}/{}", definition.group, storage.name);
    let served_as = format!("{}/{}", definition.group, version.name);
    match webhook {
        None => (
            Arc::new(move |object| object["apiVersion"] = stored_as.as_str().into()),
            Arc::new(move |object, _| object["apiVersion"] = served_as.as_str().into()),
        ),
        Some(webhook) => {
            let (to, from) = (webhook.clone(), webhook.clone());
            (
                Arc::new(move |object| to.convert_now(object, &stored_as)),
                Arc::new(move |object, _| from.convert_now(object, &served_as)),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Sent;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = vec!["v1alpha1", "foo", "v2", "v1beta2", "v10", "v1", "v1beta10"];
        versions.sort_by(|a, b| priority(b).cmp(&priority(a)).then_with(|| a.cmp(b)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn only_a_change_beside_metadata_is_a_generation() {
        let prepare = prepare(true);
        let old = json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "status": {"s": 1}});
        let mut new = json!({"metadata": {"labels": {}}, "spec": {"a": 1}, "status": {"s": 2}});
        prepare(&mut new, Some(&old), &Sent::default());
        assert_eq!((&new["metadata"]["generation"], &new["status"]), (&json!(3), &json!({"s": 1})));
        new["spec"] = json!({"a": 2});
        prepare(&mut new, Some(&old), &Sent::default());
        assert_eq!(new["metadata"]["generation"], 4);
        let mut created = json!({"metadata": {}, "status": {"s": 1}});
        prepare(&mut created, None, &Sent::default());
        assert_eq!(created, json!({"metadata": {"generation": 1}}));
    }
}
