//! Why `openAPIV3Schema` may not stand in a definition.

use serde_json::{Value, json};

use super::root_fields;
use crate::{
    custom::{
        rules::{Budget, RuleScope},
        structural::{Additional, Structural, check, field_path},
        validate::formats,
    },
    kinds::FieldError,
    warnings,
};

mod defaults;
mod list_type;

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
        defaults::validate(path, &schema, true, false, &mut budget, &mut structure);
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
