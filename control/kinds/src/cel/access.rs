//! Parts of values: fields, items, keys.

use std::rc::Rc;

use super::{
    ast::Literal,
    eval::{Answer, EvalError},
    value::{Opaque, Value},
};

/// The value of a constant.
pub fn constant<'v>(literal: &Literal) -> Value<'v> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::text(text.as_str()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}

/// An optional value: there or not.
pub fn optional(found: Option<Value<'_>>) -> Value<'_> {
    Value::Optional(found.map(Rc::new))
}

/// A field of a value.
pub fn select<'v>(operand: Value<'v>, field: &str) -> Answer<'v> {
    match operand {
        Value::Map(map) => map.field(field).ok_or_else(|| EvalError::NoSuchKey(field.to_owned())),
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => match &*inner {
            Value::Map(map) => Ok(optional(map.field(field))),
            _ => Err(EvalError::NoOverload),
        },
        Value::Message(message) => message.select(field),
        Value::Opaque(Opaque::Authz(authz)) if field == "requestResource" => {
            authz.request_resource().map(|check| Value::Opaque(Opaque::Authz(check))).ok_or(EvalError::NoOverload)
        }
        _ => Err(EvalError::NoOverload),
    }
}

fn position(index: &Value<'_>) -> Option<i64> {
    match index {
        Value::Int(at) => Some(*at),
        Value::Uint(at) => i64::try_from(*at).ok(),
        Value::Double(at) if at.fract() == 0.0 => Some(*at as i64),
        _ => None,
    }
}

/// `container[index]`
pub fn index_of<'v>(container: &Value<'v>, index: &Value<'v>) -> Answer<'v> {
    match container {
        Value::List(list) => {
            let at = position(index).ok_or(EvalError::NoOverload)?;
            let found = usize::try_from(at).ok().and_then(|at| list.get(at));
            found.ok_or(EvalError::OutOfBounds(at))
        }
        Value::Map(map) => map.get(index).ok_or_else(|| match index {
            Value::String(key) => EvalError::NoSuchKey(key.to_string()),
            other => EvalError::NoSuchKey(format!("{other:?}")),
        }),
        _ => Err(EvalError::NoOverload),
    }
}

/// `container[?index]`
pub fn index_optional<'v>(container: &Value<'v>, index: &Value<'v>) -> Answer<'v> {
    match index_of(container, index) {
        Ok(found) => Ok(optional(Some(found))),
        Err(EvalError::NoSuchKey(_) | EvalError::OutOfBounds(_)) => Ok(optional(None)),
        Err(error) => Err(error),
    }
}
