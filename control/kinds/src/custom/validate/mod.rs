//! Whether a custom object is as its schema says, in the words of Kubernetes (`kube-openapi/pkg/validation`).
//!
//! - [`object`]: types, ranges, patterns, formats, required fields, `allOf` and its like, with ratcheting: what an
//!   update leaves as it was is not held against it.
//! - [`list_types`]: lists that are sets or maps name nothing twice.
//! - [`formats`]: what texts of a format look like.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::structural::{Additional, Structural};
use crate::kinds::{FieldError, FieldErrorReason, error_budget, field};

pub mod correlate;
pub mod embedded;
pub mod formats;
pub mod list_types;
mod scalar;

use correlate::Correlation;

/// Every reason why `value` is not as `schema` says. `old` is what it replaces, on update.
pub fn object(schema: &Structural, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    value_at("", schema, value, old)
}

/// The same of a value at `path`.
pub fn value_at(path: &str, schema: &Structural, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = validate(path, schema, value, Correlation::new(old)).errors;
    // Each message is told once: several alternatives may have the same.
    let mut told = HashSet::new();
    errors.retain(|error| {
        error.reason == FieldErrorReason::Untold || told.insert((error.path.clone(), error.message.clone()))
    });
    errors
}

/// What came of checking one value.
#[derive(Default)]
struct CheckedValue {
    errors: Vec<FieldError>,
    /// How many checks were made without an error: of several alternatives that fail, the errors of the one with most
    /// are told.
    passed: usize,
}

impl CheckedValue {
    fn add(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    fn merge(&mut self, other: CheckedValue) {
        self.passed = self.passed.saturating_add(other.passed);
        self.errors.extend(other.errors);
    }
}

/// How the path stands within a message.
fn named(path: &str) -> String {
    format!("{path} in body")
}

/// The path of an error: a leading dot is not shown.
fn shown(path: &str) -> &str {
    path.strip_prefix('.').unwrap_or(path)
}

fn invalid(path: &str, value: &Value, why: impl AsRef<str>) -> FieldError {
    FieldError::invalid(shown(path), value, format!("{} {}", named(path), why.as_ref()))
}

/// The type of a value is not what the schema says: `found` is what it is.
fn wrong_type(path: &str, expected: &str, found: &str) -> FieldError {
    error_budget::reason(shown(path), FieldErrorReason::TypeInvalid, || {
        format!("Invalid value: {found:?}: {} must be of type {expected}: {found:?}", named(path))
    })
}

fn validate(path: &str, schema: &Structural, value: &Value, correlation: Correlation<'_>) -> CheckedValue {
    let mut found = CheckedValue::default();
    if let Err(error) = of_type(path, schema, value) {
        found.add(error);
    } else {
        found.passed += 1;
    }
    if value.is_null() {
        scalar::enumerated(path, schema, value, &mut found);
    } else {
        junctors(path, schema, value, correlation, &mut found);
        match value {
            Value::String(text) => scalar::text(path, schema, text, &mut found),
            Value::Number(number) => scalar::number(path, schema, number, &mut found),
            Value::Array(list) => items(path, schema, list, correlation, &mut found),
            _ => {}
        }
        scalar::enumerated(path, schema, value, &mut found);
        if let Value::Object(map) = value {
            fields(path, schema, map, correlation, &mut found);
        }
    }
    found.passed += usize::from(found.errors.is_empty());
    // An unchanged value is not held against an update, whatever is wrong with it.
    if !found.errors.is_empty() && correlation.is_unchanged(value) {
        found.errors.clear();
    }
    found
}

fn of_type(path: &str, schema: &Structural, value: &Value) -> Result<(), FieldError> {
    let types: &[&str] = match (schema.int_or_string, schema.r#type.as_str()) {
        (true, _) => &["integer", "string"],
        (false, "") => return Ok(()),
        (false, name) => &[name],
    };
    let is_whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let found = match value {
        Value::Null if schema.nullable => return Ok(()),
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.iter().any(|expected| match *expected {
        "number" => value.is_number(),
        "integer" => value.is_number() && is_whole,
        other => other == found,
    });
    if fits { Ok(()) } else { Err(wrong_type(path, &types.join(","), found)) }
}

/// `anyOf`, `oneOf`, `allOf` and `not`.
fn junctors(path: &str, schema: &Structural, value: &Value, correlation: Correlation<'_>, found: &mut CheckedValue) {
    let checks = &schema.checks;
    // A schema within a junctor sees the same value, but is not ratcheted by itself.
    let alternative = |schema: &Structural| validate(path, schema, value, correlation.within_junctor());
    if !checks.any_of.is_empty() {
        let results: Vec<CheckedValue> = checks.any_of.iter().map(alternative).collect();
        match results.iter().any(|result| result.errors.is_empty()) {
            true => found.passed += 1,
            false => {
                found.add(whole(path, "must validate at least one schema (anyOf)"));
                found.merge(best(results));
            }
        }
    }
    if !checks.one_of.is_empty() {
        let results: Vec<CheckedValue> = checks.one_of.iter().map(alternative).collect();
        match results.iter().filter(|result| result.errors.is_empty()).count() {
            1 => found.passed += 1,
            0 => {
                found.add(whole(path, "must validate one and only one schema (oneOf). Found none valid"));
                found.merge(best(results));
            }
            count => found.add(whole(
                path,
                &format!("must validate one and only one schema (oneOf). Found {count} valid alternatives"),
            )),
        }
    }
    if !checks.all_of.is_empty() {
        let mut passed = 0;
        for result in checks.all_of.iter().map(alternative) {
            passed += usize::from(result.errors.is_empty());
            found.merge(result);
        }
        if passed != checks.all_of.len() {
            let rest = if passed == 0 { ". None validated" } else { "" };
            found.add(whole(path, &format!("must validate all the schemas (allOf){rest}")));
        }
    }
    if let Some(not) = &checks.not
        && alternative(not).errors.is_empty()
    {
        found.add(whole(path, "must not validate the schema (not)"));
    }
}

/// An error of the object as a whole, which Kubernetes tells without a field.
fn whole(path: &str, why: &str) -> FieldError {
    FieldError::invalid("<nil>", &json!(""), format!("{path:?} {why}"))
}

/// Of alternatives that all failed, the first with most checks passed.
fn best(results: Vec<CheckedValue>) -> CheckedValue {
    let mut best: Option<CheckedValue> = None;
    for result in results {
        if best.as_ref().is_none_or(|best| result.passed > best.passed) {
            best = Some(result);
        }
    }
    best.unwrap_or_default()
}

fn items(path: &str, schema: &Structural, list: &[Value], correlation: Correlation<'_>, found: &mut CheckedValue) {
    if let Some(items) = schema.items.as_deref() {
        let before = correlation.items(schema);
        for (index, item) in list.iter().enumerate() {
            let old = before.correlate(item);
            found.merge(validate(&field::item(path, index), items, item, old));
        }
    }
    let size = list.len() as i64;
    if let Some(least) = schema.checks.min_items.filter(|least| size < *least) {
        found.add(invalid(path, &json!(size), format!("should have at least {least} items")));
    }
    if let Some(most) = schema.checks.max_items.filter(|most| size > *most) {
        found.add(FieldError::too_many(shown(path), list.len(), usize::try_from(most).unwrap_or_default()));
    }
    if schema.checks.unique_items && list_types::has_duplicates(list) {
        found.add(invalid(path, &json!(""), "shouldn't contain duplicates"));
    }
}

fn fields(
    path: &str,
    schema: &Structural,
    map: &serde_json::Map<String, Value>,
    correlation: Correlation<'_>,
    found: &mut CheckedValue,
) {
    let size = map.len() as i64;
    if let Some(least) = schema.checks.min_properties.filter(|least| size < *least) {
        found.add(invalid(path, &json!(size), format!("should have at least {least} properties")));
    }
    if let Some(most) = schema.checks.max_properties.filter(|most| size > *most) {
        found.add(FieldError::too_many(shown(path), map.len(), usize::try_from(most).unwrap_or_default()));
    }
    for (key, value) in map {
        if let (Additional::Of(values), false) = (&schema.additional, schema.properties.contains_key(key)) {
            let old = correlation.key(schema, key, path.is_empty());
            found.merge(validate(&field::child(path, key), values, value, old));
        }
    }
    for (name, property) in &schema.properties {
        if let Some(value) = map.get(name) {
            let path_of_field = if path.is_empty() { name.clone() } else { field::child(path, name) };
            let old = correlation.key(schema, name, path.is_empty());
            found.merge(validate(&path_of_field, property, value, old));
        }
    }
    for name in schema.checks.required.iter().filter(|name| !map.contains_key(*name)) {
        found.add(FieldError::required(shown(&format!("{path}.{name}")), ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
        let schema = Structural::read(&schema);
        let errors = object(&schema, &value, old.as_ref());
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    fn spec(schema: Value) -> Value {
        json!({"type": "object", "properties": {"spec": schema}})
    }

    #[test]
    fn a_wrong_type_is_told_as_kubernetes_tells_it() {
        let schema = spec(json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "integer"}, "n": {"type": "number"}, "p": {"x-kubernetes-int-or-string": true},
            "s": {"type": "string"}, "l": {"type": "array", "items": {"type": "boolean"}}}}));
        assert_eq!(
            errors(schema.clone(), json!({"spec": {"a": "x", "n": 1, "p": true, "s": null, "l": [true, 1]}}), None),
            [
                "spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\"",
                "spec.l[1]: Invalid value: \"integer\": spec.l[1] in body must be of type boolean: \"integer\"",
                "spec.p: Invalid value: \"boolean\": spec.p in body must be of type integer,string: \"boolean\"",
                "spec.s: Invalid value: \"null\": spec.s in body must be of type string: \"null\"",
                "spec.b: Required value",
            ]
        );
        assert_eq!(errors(schema, json!({"spec": {"a": 2.0, "b": 1, "p": "x"}}), None), Vec::<String>::new());
    }

    #[test]
    fn ranges_lengths_patterns_and_enums_are_checked() {
        let schema = spec(json!({"type": "object", "maxProperties": 5, "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 10, "exclusiveMaximum": true, "multipleOf": 3},
            "s": {"type": "string", "minLength": 3, "pattern": "^a+$"}, "t": {"type": "string", "maxLength": 1},
            "e": {"type": "string", "enum": ["x", "y"]}, "l": {"type": "array", "maxItems": 1,
                "items": {"type": "integer"}}}}));
        let value = json!({"spec": {"n": 10, "s": "b", "t": "äö", "e": "z", "l": [1, 2]}});
        assert_eq!(
            errors(schema, value, None),
            [
                "spec.e: Unsupported value: \"z\": supported values: \"x\", \"y\"",
                "spec.l: Too many: 2: must have at most 1 items",
                "spec.n: Invalid value: 10: spec.n in body should be a multiple of 3",
                "spec.n: Invalid value: 10: spec.n in body should be less than 10",
                "spec.s: Invalid value: \"b\": spec.s in body should be at least 3 chars long",
                "spec.s: Invalid value: \"b\": spec.s in body should match '^a+$'",
                "spec.t: Too long: may not be more than 1 bytes",
            ]
        );
    }

    #[test]
    fn alternatives_tell_the_nearest_one() {
        let schema = spec(json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}));
        assert_eq!(errors(schema.clone(), json!({"spec": {"a": "x"}}), None), Vec::<String>::new());
        assert_eq!(
            errors(schema.clone(), json!({"spec": {"a": "x", "b": "y"}}), None),
            ["<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid \
                alternatives"]
        );
        assert_eq!(
            errors(schema, json!({"spec": {}}), None),
            [
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
                "spec.a: Required value",
            ]
        );
    }

    #[test]
    fn what_an_update_leaves_alone_is_not_held_against_it() {
        let schema = spec(json!({"type": "object", "properties": {"a": {"type": "integer", "maximum": 3},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer",
                    "maximum": 1}}}},
            "atomic": {"type": "array", "items": {"type": "integer", "maximum": 1}}}}));
        let old = json!({"spec": {"a": 5, "l": [{"k": "x", "v": 9}], "atomic": [7]}});
        let new = json!({"spec": {"a": 5, "l": [{"k": "new", "v": 1}, {"k": "x", "v": 9}], "atomic": [7], "c": 1}});
        assert_eq!(errors(schema.clone(), new, Some(old.clone())), Vec::<String>::new());
        let new = json!({"spec": {"a": 6, "l": [{"k": "x", "v": 8}], "atomic": [7, 1]}});
        assert_eq!(errors(schema, new, Some(old)).len(), 3);
    }
}
