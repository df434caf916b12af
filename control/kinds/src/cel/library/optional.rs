//! Optional values: `optional.of(x)`, `x.hasValue()`, `x.orValue(y)`.

use std::rc::Rc;

use crate::cel::{
    eval::{Answer, Run, failure},
    value::Value,
};

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    let value = match (name, values) {
        ("optional.none", []) => Value::Optional(None),
        ("optional.of", [value]) => Value::Optional(Some(Rc::new(value.clone()))),
        ("optional.ofNonZeroValue", [value]) => Value::Optional((!is_zero(value)).then(|| Rc::new(value.clone()))),
        ("hasValue", [Value::Optional(inner)]) => Value::Bool(inner.is_some()),
        ("value", [Value::Optional(Some(inner))]) => (**inner).clone(),
        ("value", [Value::Optional(None)]) => return Some(Err(failure("optional.none() dereference"))),
        ("or", [Value::Optional(None), other]) | ("orValue", [Value::Optional(None), other]) => other.clone(),
        ("or", [this, _]) => this.clone(),
        ("orValue", [Value::Optional(Some(inner)), _]) => (**inner).clone(),
        _ => return None,
    };
    Some(run.charge(1).map(|()| value))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
        Value::Double(number) => *number == 0.0,
        Value::Optional(inner) => inner.is_none(),
        Value::Message(message) => message.fields().is_empty(),
        other => other.length() == Some(0),
    }
}
