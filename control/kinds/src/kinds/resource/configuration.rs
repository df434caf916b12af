//! Opaque configuration that a driver gets, and CEL selectors of devices: reasons against.

use serde_json::Value;

use super::{items, text, too_many};
use crate::{
    cel::{self, Scope, Type},
    kinds::{FieldError, names},
};

/// How many selectors, and how many configurations, there may be.
pub const MAX_ITEMS: usize = 32;
/// Bytes of the parameters of a driver, and of a CEL expression.
const MAX_BYTES: usize = 10 << 10;

/// Why a configuration may not stand. Parameters that are stored already may be of any size.
pub fn validate(path: &str, configuration: &Value, stored: bool) -> Vec<FieldError> {
    let opaque = &configuration["opaque"];
    let path = format!("{path}.opaque");
    if opaque.is_null() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = names::csi_driver(&format!("{path}.driver"), &opaque["driver"]);
    errors.extend(raw_object(&format!("{path}.parameters"), &opaque["parameters"], stored));
    errors
}

/// Why a value is no JSON object of a bounded size.
pub fn raw_object(path: &str, value: &Value, stored: bool) -> Option<FieldError> {
    if value.is_null() {
        return Some(FieldError::required(path, ""));
    }
    if !stored && value.to_string().len() > MAX_BYTES {
        return Some(FieldError::too_long(path, MAX_BYTES));
    }
    (!value.is_object()).then(|| FieldError::invalid(path, &"<value omitted>".into(), "must be a valid JSON object"))
}

/// Why the selectors of an object may not stand. Expressions that are stored already are not compiled again.
pub fn selectors(path: &str, owner: &Value, stored: bool) -> Vec<FieldError> {
    let path = format!("{path}.selectors");
    let list = items(owner, "selectors");
    if let Some(error) = too_many(&path, list, MAX_ITEMS) {
        return vec![error];
    }
    let mut errors = Vec::new();
    for (i, selector) in list.iter().enumerate() {
        let path = format!("{path}[{i}].cel");
        if selector["cel"].is_null() {
            errors.push(FieldError::required(path, ""));
        } else if text(&selector["cel"], "expression").len() > MAX_BYTES {
            errors.push(FieldError::too_long(format!("{path}.expression"), MAX_BYTES));
        } else if !stored && let Some(why) = cannot_select(text(&selector["cel"], "expression")) {
            errors.push(FieldError::invalid(format!("{path}.expression"), &selector["cel"]["expression"], why));
        }
    }
    errors
}

/// Why an expression does not tell whether a device is selected.
fn cannot_select(expression: &str) -> Option<String> {
    let scope = Scope::default().with("device", Type::Dyn);
    match cel::compile(expression, &scope, &Type::Dyn) {
        Ok(program) if matches!(program.r#type, Type::Bool | Type::Dyn) => None,
        Ok(program) => Some(format!("must evaluate to bool or the unknown type, not {}", program.r#type)),
        Err(why) => Some(format!("compilation failed: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_a_bounded_object_of_a_driver() {
        let of = |parameters: Value| json!({"opaque": {"driver": "gpu.example.com", "parameters": parameters}});
        assert_eq!(validate("c", &of(json!({"a": 1})), false), []);
        let paths = |value: &Value| validate("c", value, false).into_iter().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(paths(&json!({})), ["c.opaque"]);
        assert_eq!(paths(&json!({"opaque": {}})), ["c.opaque.driver", "c.opaque.parameters"]);
        assert_eq!(paths(&of(json!([1]))), ["c.opaque.parameters"]);
        let large = of(json!({"a": "x".repeat(MAX_BYTES)}));
        assert_eq!(paths(&large), ["c.opaque.parameters"]);
        assert_eq!(validate("c", &large, true), []);
        let selectors = json!({"selectors": [{"cel": {"expression": "true"}}, {},
            {"cel": {"expression": "x".repeat(MAX_BYTES + 1)}}]});
        assert_eq!(super::selectors("c", &selectors, false).len(), 2);
        let of = |expression: &str| json!({"selectors": [{"cel": {"expression": expression}}]});
        let count = |expression: &str, stored| super::selectors("c", &of(expression), stored).len();
        let good = "device.driver == 'a' && device.attributes['a'].b.isGreaterThan(quantity('1'))";
        assert_eq!((count(good, false), count("device.allowed", false)), (0, 0));
        assert_eq!((count("a b", false), count("a", false), count("1", false), count("a b", true)), (1, 1, 1, 0));
    }
}
