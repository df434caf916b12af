//! Equality, order and arithmetic of values, with CEL's rules: numbers of different types are equal where their values
//! are, overflow is an error, lists that are sets or maps by their schema are compared as such.

use std::{cmp::Ordering, collections::HashSet, rc::Rc};

use super::{
    list::List,
    value::{Opaque, Value},
};

/// Whether two values are equal. Values of types that have nothing in common are not.
pub fn equal<'v>(a: &Value<'v>, b: &Value<'v>) -> bool {
    equal_counted(a, b, &mut 0)
}

/// The same; adds to `work` how many values were looked at.
pub fn equal_counted<'v>(a: &Value<'v>, b: &Value<'v>, work: &mut u64) -> bool {
    *work = work.saturating_add(1);
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::List(a), Value::List(b)) => equal_lists(a, b, work),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.entries()
                    .iter()
                    .all(|(key, value)| b.exactly(key).is_some_and(|other| equal_counted(value, &other, work)))
        }
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal_counted(a, b, work),
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Opaque(a), Value::Opaque(b)) => match (a, b) {
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a.compare(b).is_eq(),
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a, n), Opaque::Cidr(b, m)) => (a, n) == (b, m),
            (Opaque::Format(a), Opaque::Format(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a == b,
            _ => false,
        },
        (Value::Message(a), Value::Message(b)) => {
            a.name() == b.name()
                && a.fields().len() == b.fields().len()
                && a.fields()
                    .iter()
                    .all(|(name, value)| b.get(name).is_some_and(|other| equal_counted(value, other, work)))
        }
        _ => number_order(a, b).is_some_and(Ordering::is_eq),
    }
}

fn equal_lists<'v>(a: &List<'v>, b: &List<'v>, work: &mut u64) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let schema = a.schema().or_else(|| b.schema());
    if schema.is_some_and(|schema| matches!(schema.list_type.as_deref(), Some("set" | "map")))
        && let (List::Data(a, _), List::Data(b, _)) = (a, b)
    {
        // The order does not count: sets and maps have each item once.
        let texts = |list: &[serde_json::Value]| -> HashSet<String> { list.iter().map(canonical).collect() };
        let (a, b) = (texts(a), texts(b));
        *work = work.saturating_add(a.iter().chain(&b).map(|text| text.len() as u64).sum());
        return a == b;
    }
    a.iter().zip(b.iter()).all(|(a, b)| equal_counted(&a, &b, work))
}

/// Equal data has equal texts.
fn canonical(value: &serde_json::Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    value.to_string()
}

fn same_field<'v>(a: &Value<'v>, b: &Value<'v>, name: &str) -> bool {
    let field = |value: &Value<'v>| match value {
        Value::Map(map) => map.field(name),
        _ => None,
    };
    match (field(a), field(b)) {
        (Some(a), Some(b)) => equal(&a, &b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// The order of two values, if they have one.
pub fn order<'v>(a: &Value<'v>, b: &Value<'v>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))) => Some(a.compare(b)),
        _ => number_order(a, b),
    }
}

fn number_order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Double(a), Value::Uint(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Int(_) | Value::Uint(_), Value::Double(_)) => number_order(b, a).map(Ordering::reverse),
        _ => None,
    }
}

/// What arithmetic can go wrong.
pub enum Failure {
    NoOverload,
    Message(&'static str),
}

const OVERFLOW: Failure = Failure::Message("integer overflow");

/// `a OPERATOR b`
pub fn arithmetic<'v>(operator: &str, a: Value<'v>, b: Value<'v>) -> Result<Value<'v>, Failure> {
    use Value::{Bytes, Double, Duration, Int, List, String, Timestamp, Uint};
    let int = |found: Option<i64>| found.map(Int).ok_or(OVERFLOW);
    let uint = |found: Option<u64>| found.map(Uint).ok_or(Failure::Message("unsigned integer overflow"));
    let time = |found: Result<jiff::Timestamp, jiff::Error>| {
        found.map(Timestamp).map_err(|_| Failure::Message("timestamp overflow"))
    };
    let span = |found: Option<i64>| found.map(Duration).ok_or(Failure::Message("duration overflow"));
    match (operator, a, b) {
        ("_+_", Int(a), Int(b)) => int(a.checked_add(b)),
        ("_-_", Int(a), Int(b)) => int(a.checked_sub(b)),
        ("_*_", Int(a), Int(b)) => int(a.checked_mul(b)),
        ("_/_", Int(_), Int(0)) | ("_/_", Uint(_), Uint(0)) => Err(Failure::Message("division by zero")),
        ("_%_", Int(_), Int(0)) | ("_%_", Uint(_), Uint(0)) => Err(Failure::Message("modulus by zero")),
        ("_/_", Int(a), Int(b)) => int(a.checked_div(b)),
        ("_%_", Int(a), Int(b)) => int(a.checked_rem(b)),
        ("_+_", Uint(a), Uint(b)) => uint(a.checked_add(b)),
        ("_-_", Uint(a), Uint(b)) => uint(a.checked_sub(b)),
        ("_*_", Uint(a), Uint(b)) => uint(a.checked_mul(b)),
        ("_/_", Uint(a), Uint(b)) => uint(a.checked_div(b)),
        ("_%_", Uint(a), Uint(b)) => uint(a.checked_rem(b)),
        ("_+_", Double(a), Double(b)) => Ok(Double(a + b)),
        ("_-_", Double(a), Double(b)) => Ok(Double(a - b)),
        ("_*_", Double(a), Double(b)) => Ok(Double(a * b)),
        ("_/_", Double(a), Double(b)) => Ok(Double(a / b)),
        ("_+_", String(a), String(b)) => Ok(String(format!("{a}{b}").into())),
        ("_+_", Bytes(a), Bytes(b)) => Ok(Bytes(a.iter().chain(b.iter()).copied().collect())),
        ("_+_", List(a), List(b)) => add_lists(a, b),
        ("_+_", Timestamp(a), Duration(b)) | ("_+_", Duration(b), Timestamp(a)) => {
            time(a.checked_add(jiff::SignedDuration::from_nanos(b)))
        }
        ("_-_", Timestamp(a), Duration(b)) => time(a.checked_sub(jiff::SignedDuration::from_nanos(b))),
        ("_-_", Timestamp(a), Timestamp(b)) => {
            span(i64::try_from(a.as_nanosecond().saturating_sub(b.as_nanosecond())).ok())
        }
        ("_+_", Duration(a), Duration(b)) => span(a.checked_add(b)),
        ("_-_", Duration(a), Duration(b)) => span(a.checked_sub(b)),
        _ => Err(Failure::NoOverload),
    }
}

/// `a + b`: a set takes what it does not have, a map of items takes those of `b` in the place of its own.
fn add_lists<'v>(a: List<'v>, b: List<'v>) -> Result<Value<'v>, Failure> {
    let schema = a.schema();
    let joined = match schema.and_then(|schema| schema.list_type.as_deref()) {
        Some("set") => {
            let mut items: Vec<Value<'v>> = a.iter().collect();
            for item in b.iter() {
                if !items.iter().any(|known| equal(known, &item)) {
                    items.push(item);
                }
            }
            Some(List::Made(Rc::new(items)))
        }
        Some("map") => {
            let keys = schema.map(|schema| schema.list_map_keys.as_slice()).unwrap_or_default();
            let mut items: Vec<Value<'v>> = a.iter().collect();
            for item in b.iter() {
                match items.iter_mut().find(|known| keys.iter().all(|key| same_field(known, &item, key))) {
                    Some(known) => *known = item,
                    None => items.push(item),
                }
            }
            Some(List::Made(Rc::new(items)))
        }
        _ => a.join(b),
    };
    joined.map(Value::List).ok_or(Failure::Message("list too long"))
}
