//! Whether a schema is structural: what describes the shape of a value stands outside of `allOf`, `anyOf`, `oneOf` and
//! `not`, and what these check is described.
//!
//! Source: KEP 1693 (vanilla CRD OpenAPI subset: structural schema).

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
};

use serde_json::{Value, json};

use super::{Additional, Checks, Structural};
use crate::{cel::pattern, kinds::FieldError};

/// What a node describes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Most bytes of all regular expressions of a schema, compiled.
const MAX_PATTERNS: usize = 64 << 20;

/// Every reason why `schema` is not structural.
pub fn check(path: &str, schema: &Structural) -> Vec<FieldError> {
    if !patterns_fit(schema) {
        let why = format!("the regular expressions in it take more than {} MiB compiled", MAX_PATTERNS >> 20);
        return vec![FieldError::forbidden(path, &why)];
    }
    let mut errors = Vec::new();
    invariants(path, schema, Level::Root, &mut errors);
    complete(&schema.checks, Some(schema), path, path, &mut errors);
    errors.sort_by(|a, b| (&a.path, &a.message).cmp(&(&b.path, &b.message)));
    errors
}

/// Keywords that no structural schema can have. Empty ones count as left out.
const UNSUPPORTED: [&str; 6] = ["id", "$schema", "$ref", "patternProperties", "dependencies", "definitions"];

/// Whether the text of a schema has keywords that no structural schema can have, at any depth.
pub fn has_unsupported(text: &Value) -> bool {
    const PARTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
    let is_told = |value: &Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => false,
    };
    let below = || {
        let lists = PARTS.iter().filter_map(|field| text[*field].as_array()).flatten();
        let fields = text["properties"].as_object().into_iter().flat_map(|fields| fields.values());
        lists.chain(fields).chain(["items", "additionalProperties", "not"].map(|field| &text[field]))
    };
    if !text.is_object() {
        return false;
    }
    UNSUPPORTED.iter().any(|field| is_told(&text[*field]))
        || !text["additionalItems"].is_null()
        || text["items"].is_array()
        || below().any(has_unsupported)
}

/// Whether all patterns together are of a size that can be kept compiled. One that cannot be compiled counts as much as
/// the largest that can.
fn patterns_fit(schema: &Structural) -> bool {
    let (seen, size) = (RefCell::new(HashSet::new()), Cell::new(0_usize));
    let exceeds = |node: &Structural| match &node.checks.pattern {
        Some(text) if seen.borrow_mut().insert(text.clone()) => {
            size.set(size.get().saturating_add(pattern::compile(text).map_or(1 << 20, |pattern| pattern.size())));
            size.get() > MAX_PATTERNS
        }
        _ => false,
    };
    !schema.any(&exceeds)
}

/// `path.properties[name]`
pub fn property(path: &str, name: &str) -> String {
    format!("{path}.properties[{name}]")
}

fn invariants(path: &str, schema: &Structural, level: Level, errors: &mut Vec<FieldError>) {
    if schema.r#type == "array" && schema.items.is_none() {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    if let Some(items) = &schema.items {
        invariants(&format!("{path}.items"), items, Level::Item, errors);
    }
    for (name, field) in &schema.properties {
        invariants(&property(path, name), field, Level::Field, errors);
    }
    let additional = format!("{path}.additionalProperties");
    if !matches!(schema.additional, Additional::None) && level == Level::Root {
        errors.push(FieldError::forbidden(&additional, "must not be used at the root"));
    }
    if let Additional::Of(values) = &schema.additional {
        invariants(&additional, values, Level::Field, errors);
    }
    if schema.int_or_string && schema.preserve {
        let why = "must be false if x-kubernetes-int-or-string is true";
        let path = format!("{path}.x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(path, &json!(true), why));
    }
    if schema.int_or_string && schema.embedded {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.push(FieldError::invalid(format!("{path}.x-kubernetes-embedded-resource"), &json!(true), why));
    }
    let any_of = is_int_or_string(&schema.checks.any_of);
    let all_of = schema.checks.all_of.first().is_some_and(|first| is_int_or_string(&first.checks.any_of));
    value_checks(path, &schema.checks, (any_of, all_of), errors);
    types(path, schema, level, errors);
    metadata(path, schema, level, errors);
    if schema.embedded && !schema.preserve && schema.properties.is_empty() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{path}.properties"), why));
    }
}

/// `type`, which may be left out only where another keyword says what the values are.
fn types(path: &str, schema: &Structural, level: Level, errors: &mut Vec<FieldError>) {
    let at = format!("{path}.type");
    if schema.embedded && schema.r#type != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match schema.r#type.as_str() {
            "" => FieldError::required(&at, why),
            other => FieldError::invalid(&at, &json!(other), why),
        });
    } else if schema.r#type.is_empty() && !schema.int_or_string && !schema.preserve {
        errors.push(FieldError::required(
            &at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        ));
    }
    if schema.embedded && !matches!(schema.additional, Additional::None) {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), why));
    }
    if level == Level::Root && !schema.r#type.is_empty() && schema.r#type != "object" {
        errors.push(FieldError::invalid(&at, &json!(schema.r#type), "must be object at the root"));
    }
}

/// What a schema may say of `apiVersion`, `kind` and `metadata`.
fn metadata(path: &str, schema: &Structural, level: Level, errors: &mut Vec<FieldError>) {
    let is_resource = level == Level::Root || schema.embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(field) = schema.properties.get(name).filter(|field| is_resource && field.r#type != "string") {
            let at = format!("{}.type", property(path, name));
            errors.push(FieldError::invalid(at, &json!(field.r#type), "must be string"));
        }
    }
    let Some(metadata) = schema.properties.get("metadata") else { return };
    let at = property(path, "metadata");
    if is_resource && metadata.r#type != "object" {
        errors.push(FieldError::invalid(format!("{at}.type"), &json!(metadata.r#type), "must be object"));
    }
    if level == Level::Root && says_more_than_names(metadata) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(at, why));
    }
}

fn says_more_than_names(metadata: &Structural) -> bool {
    let Structural { r#type: _, default: _, properties, .. } = metadata;
    let other = properties.keys().any(|name| name != "name" && name != "generateName");
    let rest = Structural {
        r#type: String::new(),
        default: None,
        properties: Default::default(),
        checks: Checks::default(),
        ..metadata.clone()
    };
    let plain = Structural::default();
    // Neither type has an order of fields, so the texts are equal where the values are.
    other || format!("{rest:?}{:?}", metadata.checks) != format!("{plain:?}{:?}", plain.checks)
}

/// The one form of `anyOf` in which types may stand: `[{type: integer}, {type: string}]`.
fn is_int_or_string(any_of: &[Structural]) -> bool {
    any_of.len() == 2
        && any_of.iter().zip(["integer", "string"]).all(|(schema, expected)| {
            schema.r#type == expected
                && format!("{:?}", Structural { r#type: String::new(), ..schema.clone() })
                    == format!("{:?}", Structural::default())
        })
}

fn value_checks(path: &str, checks: &Checks, skip: (bool, bool), errors: &mut Vec<FieldError>) {
    let (skip_any_of, skip_first_all_of) = skip;
    if !skip_any_of {
        for (at, schema) in checks.any_of.iter().enumerate() {
            nested(&format!("{path}.anyOf[{at}]"), schema, false, errors);
        }
    }
    for (at, schema) in checks.all_of.iter().enumerate() {
        nested(&format!("{path}.allOf[{at}]"), schema, skip_first_all_of && at == 0, errors);
    }
    for (at, schema) in checks.one_of.iter().enumerate() {
        nested(&format!("{path}.oneOf[{at}]"), schema, false, errors);
    }
    if let Some(not) = &checks.not {
        nested(&format!("{path}.not"), not, false, errors);
    }
    if let Some((text, Err(why))) = checks.pattern.as_ref().map(|text| (text, pattern::compile(text))) {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), &json!(text), why));
    }
}

/// A schema that only checks values says nothing of their shape.
fn nested(path: &str, schema: &Structural, skip_any_of: bool, errors: &mut Vec<FieldError>) {
    value_checks(path, &schema.checks, (skip_any_of, false), errors);
    if let Some(items) = &schema.items {
        nested(&format!("{path}.items"), items, false, errors);
    }
    for (name, field) in &schema.properties {
        nested(&property(path, name), field, false, errors);
    }
    let additional = !matches!(schema.additional, Additional::None);
    let forbidden = [
        (!schema.r#type.is_empty(), "type", "must be empty to be structural"),
        (additional, "additionalProperties", "must be undefined to be structural"),
        (schema.default.is_some(), "default", "must be undefined to be structural"),
        (!schema.title.is_empty(), "title", "must be empty to be structural"),
        (!schema.description.is_empty(), "description", "must be empty to be structural"),
        (schema.nullable, "nullable", "must be false to be structural"),
        (schema.preserve, "x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        (schema.embedded, "x-kubernetes-embedded-resource", "must be false to be structural"),
        (schema.int_or_string, "x-kubernetes-int-or-string", "must be false to be structural"),
        (!schema.list_map_keys.is_empty(), "x-kubernetes-list-map-keys", "must be empty to be structural"),
        (schema.list_type.is_some(), "x-kubernetes-list-type", "must be undefined to be structural"),
        (schema.map_type.is_some(), "x-kubernetes-map-type", "must be undefined to be structural"),
        (!schema.rules.is_empty(), "x-kubernetes-validations", "must be empty to be structural"),
    ];
    let found = forbidden.into_iter().filter(|(found, ..)| *found);
    errors.extend(found.map(|(_, field, why)| FieldError::forbidden(format!("{path}.{field}"), why)));
    if schema.properties.contains_key("metadata") {
        errors.push(FieldError::forbidden(property(path, "metadata"), "must not be specified in a nested context"));
    }
}

/// What is checked must be described: `at` is where it should be, `from` where it is checked.
fn complete(checks: &Checks, described: Option<&Structural>, at: &str, from: &str, errors: &mut Vec<FieldError>) {
    let lists = [("allOf", &checks.all_of), ("anyOf", &checks.any_of), ("oneOf", &checks.one_of)];
    if let Some(not) = &checks.not {
        complete_nested(not, described, at, &format!("{from}.not"), errors);
    }
    for (keyword, schemas) in lists {
        for (index, schema) in schemas.iter().enumerate() {
            complete_nested(schema, described, at, &format!("{from}.{keyword}[{index}]"), errors);
        }
    }
}

fn complete_nested(
    schema: &Structural,
    described: Option<&Structural>,
    at: &str,
    from: &str,
    errors: &mut Vec<FieldError>,
) {
    let Some(described) = described else {
        errors.push(FieldError::required(at, &format!("because it is defined in {from}")));
        return;
    };
    complete(&schema.checks, Some(described), at, from, errors);
    if let Some(items) = &schema.items {
        let (at, from) = (format!("{at}.items"), format!("{from}.items"));
        complete_nested(items, described.items.as_deref(), &at, &from, errors);
    }
    for (name, field) in &schema.properties {
        let (at, from) = (property(at, name), property(from, name));
        complete_nested(field, described.properties.get(name), &at, &from, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(schema: Value) -> Vec<String> {
        let errors = check("s", &Structural::read(&schema));
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn keywords_that_no_structural_schema_has_are_found_at_any_depth() {
        for schema in [
            json!({"id": "x"}),
            json!({"$schema": "x"}),
            json!({"properties": {"a": {"items": {"additionalItems": {}}}}}),
            json!({"allOf": [{"not": {"dependencies": {"a": ["b"]}}}]}),
        ] {
            assert!(has_unsupported(&schema), "{schema}");
        }
        assert!(!has_unsupported(&json!({"id": "", "definitions": {}, "properties": {"id": {"type": "string"}}})));
    }

    #[test]
    fn a_structural_schema_has_no_errors() {
        let schema = json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "spec": {"type": "object", "properties": {"a": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"properties": {"a": {"pattern": "x"}}}]}}});
        assert_eq!(errors(schema), Vec::<String>::new());
    }

    #[test]
    fn shape_is_described_outside_of_checks_and_fully() {
        let schema = json!({"type": "object", "additionalProperties": true, "properties": {
            "untyped": {}, "list": {"type": "array"}, "metadata": {"type": "object",
                "properties": {"labels": {"type": "object"}}},
            "bad": {"type": "string", "pattern": "("},
            "spec": {"type": "object", "not": {"type": "object", "properties": {"b": {"minimum": 1}}}}}});
        let found = errors(schema);
        let expect = [
            "s.additionalProperties: Forbidden: must not be used at the root",
            "s.properties[list].items: Required value: must be specified",
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but \
            metadata is implicitly specified",
            "s.properties[spec].not.type: Forbidden: must be empty to be structural",
            "s.properties[untyped].type: Required value: must not be empty for specified object fields",
        ];
        for expected in expect {
            assert!(found.iter().any(|error| error == expected), "{expected}: {found:#?}");
        }
        assert!(
            found.iter().any(|e| e.starts_with("s.properties[bad].pattern: Invalid value: \"(\": must be a valid"))
        );
        assert_eq!(found.len(), 6, "{found:#?}");
    }

    #[test]
    fn the_patterns_of_a_schema_are_bounded_together() {
        let pattern =
            |n: usize| (format!("p{n}"), json!({"type": "string", "pattern": format!("(a{{90}}){{50}}b{n}")}));
        let properties: serde_json::Map<String, serde_json::Value> = (0..400).map(pattern).collect();
        let found = errors(json!({"type": "object", "properties": properties}));
        assert_eq!(found, ["s: Forbidden: the regular expressions in it take more than 64 MiB compiled"]);
        let same = |n: usize| (format!("p{n}"), json!({"type": "string", "pattern": "(a{90}){50}"}));
        let properties: serde_json::Map<String, serde_json::Value> = (0..400).map(same).collect();
        assert_eq!(errors(json!({"type": "object", "properties": properties})), Vec::<String>::new());
    }

    #[test]
    fn completeness_reaches_into_nested_checks() {
        let schema = json!({"type": "object", "allOf": [{"properties": {"a": {"minimum": 1}}}]});
        assert_eq!(
            errors(schema),
            ["s.properties[a]: Required value: because it is defined in s.allOf[0].properties[a]"]
        );
    }
}
