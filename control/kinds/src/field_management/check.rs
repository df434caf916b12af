//! Whether an applied configuration fits its kind's schema: no unknown fields, no values of another type, no item
//! twice.

use serde_json::Value;

use super::shape::{Shape, TypeRef, list_item};
use crate::{kinds::field::go_value, schema::Type};

/// What is wrong with a configuration, one line each: `.spec.replicas: expected numeric (int or float), got string`.
pub fn check(of: TypeRef<'_>, config: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    value(of, config, &mut String::new(), &mut errors);
    errors
}

/// The lines as one message.
pub fn message(errors: &[String]) -> String {
    match errors {
        [only] => only.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    }
}

fn value(of: TypeRef<'_>, value: &Value, path: &mut String, errors: &mut Vec<String>) {
    let mut wrong = |what: String| {
        let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
        errors.push(format!("{at}{what}"));
    };
    match (of.r#type(), value) {
        (_, Value::Null) | (Type::Any, _) => {}
        (Type::Object(_) | Type::Map(_), Value::Object(_)) => fields(of, value, path, errors),
        (Type::Object(_) | Type::Map(_), other) => wrong(format!("expected map, got &{{{}}}", go_value(other))),
        (Type::List(_), Value::Array(_)) => items(of, value, path, errors),
        (Type::List(_), other) => wrong(format!("expected list, got &{{{}}}", go_value(other))),
        (Type::Int32 | Type::Int64 | Type::Double, Value::Number(_)) | (Type::Bool, Value::Bool(_)) => {}
        (Type::Int32 | Type::Int64 | Type::Double, other) => {
            wrong(format!("expected numeric (int or float), got {}", go_type(other)));
        }
        (Type::Bool, other) => wrong(format!("expected boolean, got &{{{}}}", go_value(other))),
        (Type::String | Type::Bytes, Value::String(_)) => {}
        (Type::String | Type::Bytes, other) => wrong(format!("expected string, got {}", go_syntax(other))),
        (_, Value::Array(_) | Value::Object(_)) => wrong(format!("expected any scalar, got &{{{}}}", go_value(value))),
        _ => {}
    }
}

fn fields(of: TypeRef<'_>, config: &Value, path: &mut String, errors: &mut Vec<String>) {
    for (name, field) in config.as_object().into_iter().flatten() {
        let length = path.len();
        path.push('.');
        path.push_str(name);
        match of.plain_field(name) {
            Some(of) => value(of, field, path, errors),
            None => errors.push(format!("{path}: field not declared in schema")),
        }
        path.truncate(length);
    }
}

fn items(of: TypeRef<'_>, config: &Value, path: &mut String, errors: &mut Vec<String>) {
    let Some(item_type) = of.plain_item() else { return };
    let shape = of.shape(Some(config));
    let mut seen = Vec::new();
    for (at, item) in config.as_array().into_iter().flatten().enumerate() {
        let element = match shape {
            Shape::Set | Shape::KeyedList { .. } => match list_item(shape, item) {
                Ok(element) => {
                    let shown = element.to_string();
                    seen.push(element);
                    shown
                }
                Err(error) => {
                    errors.push(format!("{path}: element {at}: {error}"));
                    return;
                }
            },
            _ => format!("[{at}]"),
        };
        let length = path.len();
        path.push_str(&element);
        value(item_type, item, path, errors);
        path.truncate(length);
    }
    seen.sort();
    for twice in seen.windows(2).filter(|pair| pair[0] == pair[1]) {
        errors.push(format!("{path}: duplicate entries for key {}", twice[0]));
    }
}

/// A value as Go's `%v` shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}={}", shown(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(";"))
        }
        other => other.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn go_syntax(value: &Value) -> String {
    format!("&value.valueUnstructured{{Value:{}}}", shown(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Schema;

    #[test]
    fn what_does_not_fit_is_named_with_its_path() {
        let schema = Schema::builtin("io.k8s.api.core.v1.Pod").unwrap();
        let errors = |config: Value| check(TypeRef::root(schema.types(), schema.root()), &config);
        assert_eq!(
            errors(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}})),
            [""; 0]
        );
        assert_eq!(errors(json!({"nope": 1})), [".nope: field not declared in schema"]);
        assert_eq!(
            errors(json!({"spec": {"containers": [{"name": "c", "image": 5}]}})),
            [r#".spec.containers[name="c"].image: expected string, got &value.valueUnstructured{Value:5}"#]
        );
        let twice = json!({"spec": {"containers": [{"name": "c"}, {"name": "c"}]}});
        assert_eq!(errors(twice), [r#".spec.containers: duplicate entries for key [name="c"]"#]);
        assert_eq!(
            errors(json!({"spec": {"terminationGracePeriodSeconds": "5", "tolerations": {"a": 1}}})),
            [
                ".spec.terminationGracePeriodSeconds: expected numeric (int or float), got string",
                ".spec.tolerations: expected list, got &{map[a:1]}"
            ]
        );
        assert_eq!(errors(json!({"metadata": {"finalizers": [{}]}})).len(), 1);
        assert_eq!(errors(json!({"spec": {"containers": [{"image": null}]}})), [""; 0], "a name has a default");
    }
}
