//! Why `openAPIV3Schema` may not stand in a definition.

use serde_json::{Value, json};

use super::root_fields;
use crate::{
    custom::{
        rules::{Budget, RuleScope},
        structural::{Additional, Structural, check, field_path, pruning},
        validate::{formats, list_types, value_at},
    },
    kinds::FieldError,
    warnings,
};

/// What the validation goes by beside the schema.
pub struct Options {
    /// Whether the version has the status subresource.
    pub has_status: bool,
    /// Whether the schema was stored like this before: what its rules may cost is then not limited anew.
    pub is_unchanged: bool,
}

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// Every reason why the schema at `path` may not stand.
pub fn validate(path: &str, text: &Value, options: &Options) -> Vec<FieldError> {
    let schema = Structural::read(text);
    let mut errors = Vec::new();
    if options.has_status {
        errors.extend(root_fields::validate(path, text));
    }
    if schema.nullable {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    // What cannot be read as a structural schema is told by its keywords alone.
    let is_readable = !check::has_unsupported(text);
    let mut structure = if is_readable { check::check(path, &schema) } else { Vec::new() };
    if structure.is_empty() && is_readable {
        let mut budget = crate::cel::OBJECT_BUDGET;
        defaults(path, &schema, true, false, &mut budget, &mut structure);
    }
    let scope = if structure.is_empty() && is_readable { RuleScope::root(&schema) } else { None };
    errors.extend(structure);
    let mut walk = Walk { options, total: Budget::default(), errors: Vec::new(), rule_errors: Vec::new() };
    walk.node(path, text, &schema, SchemaPosition { is_root: true, ..SchemaPosition::default() }, scope.as_ref());
    errors.append(&mut walk.errors);
    errors.append(&mut walk.rule_errors);
    errors.extend(walk.total.errors(path));
    if errors.is_empty() && !is_readable {
        // The one unsupported keyword that the walk lets pass.
        errors.push(FieldError::invalid(path, &"".into(), "OpenAPIV3Schema 'schema' is not supported"));
    }
    errors
}

/// Where a node stands.
#[derive(Clone, Default)]
struct SchemaPosition {
    is_root: bool,
    /// Why no default may stand here.
    no_default: Option<String>,
    in_metadata: bool,
    /// The nearest list or map whose parts cannot be told apart before and after an update.
    uncorrelatable: Option<String>,
}

struct Walk<'o> {
    options: &'o Options,
    /// What all rules together may cost.
    total: Budget,
    errors: Vec<FieldError>,
    /// Told after all others.
    rule_errors: Vec<FieldError>,
}

impl Walk<'_> {
    /// `scope` is there where rules may stand, and everything above is well.
    fn node(
        &mut self,
        path: &str,
        text: &Value,
        schema: &Structural,
        place: SchemaPosition,
        scope: Option<&RuleScope>,
    ) {
        let errors_before = self.errors.len();
        self.keywords(path, text, schema, &place);
        self.parts(path, text, schema, &place, scope);
        self.list(path, text, schema);
        self.rule_texts(path, schema);
        if let (Some(scope), false, true) = (scope, schema.rules.is_empty(), self.errors.len() == errors_before) {
            let uncorrelatable = place.uncorrelatable.as_deref();
            let limited = !self.options.is_unchanged;
            scope.check_rules(path, schema, uncorrelatable, limited, &mut self.total, &mut self.rule_errors);
        }
    }

    /// Keywords that are not supported, or not here.
    fn keywords(&mut self, path: &str, text: &Value, schema: &Structural, place: &SchemaPosition) {
        let mut forbid = |field: &str, why: &str| {
            self.errors.push(FieldError::forbidden(format!("{path}.{field}"), why));
        };
        if text.get("default").is_some_and(|default| !default.is_null())
            && let Some(reason) = &place.no_default
        {
            forbid("default", format!("must not be set {reason}").trim_end());
        }
        let unsupported = ["additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
        if text["id"].as_str().is_some_and(|id| !id.is_empty()) {
            forbid("id", "id is not supported");
        }
        for field in unsupported {
            let given = &text[field];
            // These are pointers in Go, and so there although nothing is in them.
            let may_be_empty = matches!(field, "$ref" | "additionalItems" | "dependencies");
            let is_empty = given.as_object().is_some_and(serde_json::Map::is_empty);
            if !given.is_null() && (may_be_empty || !is_empty) {
                forbid(field, &format!("{field} is not supported"));
            }
        }
        if schema.r#type == "null" {
            forbid("type", "type cannot be set to null, use nullable as an alternative");
        }
        if text["items"].is_array() {
            forbid("items", "items must be a schema object and not an array");
        }
        let is_unknown = schema.r#type == "string" && !schema.format.is_empty() && !formats::is_known(&schema.format);
        if is_unknown && !self.options.is_unchanged {
            warnings::add(format!("unrecognized format {:?}", schema.format));
        }
        if place.in_metadata && schema.embedded {
            forbid("x-kubernetes-embedded-resource", "must not be used inside of resource meta");
        }
        if schema.checks.unique_items {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            forbid("uniqueItems", why);
        }
        let is_open = matches!(schema.additional, Additional::Of(_)) || text["additionalProperties"] == false;
        if is_open && !schema.properties.is_empty() {
            forbid("additionalProperties", "additionalProperties and properties are mutual exclusive");
        }
        if !schema.r#type.is_empty() && !TYPES.contains(&schema.r#type.as_str()) && schema.r#type != "null" {
            let at = format!("{path}.type");
            self.errors.push(FieldError::not_supported(at, &json!(schema.r#type), TYPES));
        }
        if text["x-kubernetes-preserve-unknown-fields"] == false {
            let at = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(at, &json!(false), "must be true or undefined"));
        }
        if let Some(map_type) = &schema.map_type {
            self.must_be_type(path, schema, "object", "must be object if x-kubernetes-map-type is specified");
            if map_type != "atomic" && map_type != "granular" {
                let at = format!("{path}.x-kubernetes-map-type");
                self.errors.push(FieldError::not_supported(at, &json!(map_type), &["atomic", "granular"]));
            }
        }
    }

    fn must_be_type(&mut self, path: &str, schema: &Structural, expected: &str, why: &str) -> bool {
        let at = format!("{path}.type");
        match schema.r#type.as_str() {
            found if found == expected => return true,
            "" => self.errors.push(FieldError::required(at, why)),
            found => self.errors.push(FieldError::invalid(at, &json!(found), why)),
        }
        false
    }

    /// The schemas within this one.
    fn parts(
        &mut self,
        path: &str,
        text: &Value,
        schema: &Structural,
        place: &SchemaPosition,
        scope: Option<&RuleScope>,
    ) {
        if let Additional::Of(values) = &schema.additional {
            let mut inner = SchemaPosition { is_root: false, ..place.clone() };
            if place.in_metadata {
                inner.no_default = Some("inside additionalProperties applying to object metadata".to_owned());
            }
            let scope = scope.and_then(|scope| scope.values(schema, values));
            let at = format!("{path}.additionalProperties");
            self.node(&at, &text["additionalProperties"], values, inner, scope.as_ref());
        }
        for (name, property) in &schema.properties {
            let mut inner = SchemaPosition { is_root: false, ..place.clone() };
            if schema.map_type.as_deref() == Some("atomic") {
                inner.uncorrelatable.get_or_insert_with(|| path.to_owned());
            }
            if (place.is_root || schema.embedded) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                inner.in_metadata = true;
                if place.is_root {
                    inner.no_default = Some(format!("in top-level {name}"));
                }
            }
            let scope = scope.and_then(|scope| scope.property(name, property));
            self.node(&check::property(path, name), &text["properties"][name], property, inner, scope.as_ref());
        }
        let nested = SchemaPosition { is_root: false, ..place.clone() };
        if let Some(not) = &schema.checks.not {
            self.node(&format!("{path}.not"), &text["not"], not, nested.clone(), None);
        }
        let lists =
            [("allOf", &schema.checks.all_of), ("oneOf", &schema.checks.one_of), ("anyOf", &schema.checks.any_of)];
        for (keyword, schemas) in lists {
            for (index, schema) in schemas.iter().enumerate() {
                self.node(&format!("{path}.{keyword}[{index}]"), &text[keyword][index], schema, nested.clone(), None);
            }
        }
        if let Some(items) = &schema.items {
            let mut inner = nested;
            if schema.list_type.as_deref() != Some("map") {
                inner.uncorrelatable.get_or_insert_with(|| path.to_owned());
            }
            let scope = scope.and_then(|scope| scope.items(schema, items));
            self.node(&format!("{path}.items"), &text["items"], items, inner, scope.as_ref());
        }
    }

    /// `x-kubernetes-list-type` and what goes with it.
    fn list(&mut self, path: &str, text: &Value, schema: &Structural) {
        let list_type = schema.list_type.as_deref();
        let at_type = format!("{path}.x-kubernetes-list-type");
        let items = schema.items.as_deref();
        if list_type.is_some() {
            let is_array =
                self.must_be_type(path, schema, "array", "must be array if x-kubernetes-list-type is specified");
            if let (true, Some("set"), Some(items)) = (is_array, list_type, items) {
                let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
                if items.r#type == "array" && items.list_type.as_deref().is_some_and(|inner| inner != "atomic") {
                    let at = format!("{path}.items.x-kubernetes-list-type");
                    self.errors.push(FieldError::invalid(at, &json!(items.list_type), why));
                }
                if items.r#type == "object" && items.map_type.as_deref() != Some("atomic") {
                    let at = format!("{path}.items.x-kubernetes-map-type");
                    self.errors.push(FieldError::invalid(at, &json!(items.list_type), why));
                }
            }
        }
        match list_type {
            None | Some("atomic" | "set" | "map") => {}
            Some(other) => {
                let supported = ["atomic", "set", "map"];
                self.errors.push(FieldError::not_supported(&at_type, &json!(other), &supported));
            }
        }
        if !schema.list_map_keys.is_empty() && list_type != Some("map") {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.errors.push(match list_type {
                None => FieldError::required(&at_type, why),
                Some(other) => FieldError::invalid(&at_type, &json!(other), why),
            });
        }
        if list_type == Some("map") {
            self.map_keys(path, text, schema);
        }
        if let (Some(list_type @ ("set" | "map")), Some(items)) = (list_type, items) {
            if items.nullable {
                let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
                self.errors.push(FieldError::forbidden(format!("{path}.items.nullable"), &why));
            }
            if list_type == "map" {
                self.keys_are_always_there(path, schema, items);
            }
        }
    }

    fn map_keys(&mut self, path: &str, text: &Value, schema: &Structural) {
        let at_keys = format!("{path}.x-kubernetes-list-map-keys");
        if schema.list_map_keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(&at_keys, why));
        }
        let Some(items) = schema.items.as_deref() else {
            let why = "must have a schema if x-kubernetes-list-type is map";
            if text["items"].is_null() {
                self.errors.push(FieldError::required(format!("{path}.items"), why));
            }
            return;
        };
        if items.r#type != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.errors.push(FieldError::invalid(format!("{path}.items.type"), &json!(items.r#type), why));
            return;
        }
        for (index, key) in schema.list_map_keys.iter().enumerate() {
            match items.properties.get(key) {
                Some(property) if matches!(property.r#type.as_str(), "array" | "object") => {
                    let at = format!("{}.type", check::property(&format!("{path}.items"), key));
                    let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.errors.push(FieldError::invalid(at, &json!(items.r#type), why));
                }
                Some(_) => {}
                None => {
                    let why = "entries must all be names of item properties";
                    self.errors.push(FieldError::invalid(&at_keys, &json!(schema.list_map_keys), why));
                }
            }
            if schema.list_map_keys[..index].contains(key) {
                let why = "must not contain duplicate entries";
                self.errors.push(FieldError::invalid(&at_keys, &json!(schema.list_map_keys), why));
            }
        }
    }

    fn keys_are_always_there(&mut self, path: &str, schema: &Structural, items: &Structural) {
        for key in &schema.list_map_keys {
            let Some(property) = items.properties.get(key) else { continue };
            let at = check::property(&format!("{path}.items"), key);
            if property.default.is_none() && !items.checks.required.contains(key) {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                property";
                self.errors.push(FieldError::required(format!("{at}.default"), why));
            }
            if property.nullable {
                let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.errors.push(FieldError::forbidden(format!("{at}.nullable"), why));
            }
        }
    }

    /// The texts of rules, before they are read as CEL.
    fn rule_texts(&mut self, path: &str, schema: &Structural) {
        let breaks = |text: &str| text.contains(['\n', '\r']);
        for (index, rule) in schema.rules.iter().enumerate() {
            let at = |field: &str| format!("{path}.x-kubernetes-validations[{index}].{field}");
            let invalid = |field: &str, value: &str, why: &str| FieldError::invalid(at(field), &json!(value), why);
            let message = rule.message.trim();
            if rule.rule.trim().is_empty() {
                self.errors.push(FieldError::required(at("rule"), "rule is not specified"));
            } else if !rule.message.is_empty() && message.is_empty() {
                self.errors.push(invalid("message", &rule.message, "must be non-empty if specified"));
            } else if breaks(message) {
                self.errors.push(invalid("message", &rule.message, "must not contain line breaks"));
            } else if breaks(rule.rule.trim()) && message.is_empty() {
                let why = "message must be specified if rule contains line breaks";
                self.errors.push(FieldError::required(at("message"), why));
            }
            if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
                let why = "messageExpression must be non-empty if specified";
                self.errors.push(FieldError::required(at("messageExpression"), why));
            }
            const REASONS: &[&str] =
                &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
            if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
                self.errors.push(FieldError::not_supported(at("reason"), &json!(reason), REASONS));
            }
            if rule.field_path.is_empty() {
                continue;
            }
            if rule.field_path.trim().is_empty() {
                self.errors.push(invalid("fieldPath", &rule.field_path, "must be non-empty if specified"));
            }
            if breaks(&rule.field_path) {
                self.errors.push(invalid("fieldPath", &rule.field_path, "must not contain line breaks"));
            }
            if field_path::resolve(&rule.field_path, schema, true).is_err() {
                self.errors.push(invalid("fieldPath", &rule.field_path, "must be a valid path"));
            }
        }
    }
}

/// Defaults must be valid by the schema that they stand in, and have no unknown fields.
fn defaults(
    path: &str,
    schema: &Structural,
    is_root: bool,
    in_metadata: bool,
    budget: &mut u64,
    errors: &mut Vec<FieldError>,
) {
    if let Some(default) = &schema.default {
        let at = format!("{path}.default");
        let mut pruned = default.clone();
        pruning::prune(&mut pruned, schema, schema.embedded);
        if pruned != *default && !in_metadata {
            errors.push(FieldError::invalid(&at, default, "must not have unknown fields"));
        }
        let mut found = value_at("", schema, default, None);
        found.extend(list_types::check("", schema, default));
        if found.is_empty() {
            let scope = RuleScope::of(schema, is_root || schema.embedded);
            let rules = scope.map(|scope| scope.compile(schema));
            found.extend(rules.iter().flat_map(|rules| rules.validate("", default, None, budget)));
        }
        errors.extend(found.into_iter().map(|error| {
            let inner = match error.path.as_str() {
                "" | "<nil>" => at.clone(),
                inner if inner.starts_with('[') => format!("{at}{inner}"),
                inner => format!("{at}.{inner}"),
            };
            FieldError { path: inner, ..error }
        }));
    }
    // Defaults are not followed into additionalProperties, as in Kubernetes.
    if let Some(items) = &schema.items {
        defaults(&format!("{path}.items"), items, false, in_metadata, budget, errors);
    }
    for (name, property) in &schema.properties {
        let is_meta = (is_root || schema.embedded) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        defaults(
            &check::property(path, name),
            property,
            false,
            in_metadata && !schema.embedded || is_meta,
            budget,
            errors,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_that_only_the_structure_forbids_is_told_when_nothing_else_is_wrong() {
        let told = |text: Value| -> Vec<String> {
            let errors = validate("s", &text, &Options { has_status: false, is_unchanged: false });
            errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
        };
        let within = json!({"type": "object", "properties": {"a": {"type": "string", "$schema": "x"}}});
        assert_eq!(told(within.clone()), ["s: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported"]);
        let mut also = within;
        also["id"] = "x".into();
        assert_eq!(told(also), ["s.id: Forbidden: id is not supported"]);
    }
}
