//! One step of a path to a field, as `FieldsV1` names it: a field, or an item of a list by its key or its value.
//!
//! The order of path elements is that of Kubernetes (structured-merge-diff), so that equal sets have equal text: fields
//! before keys before values before indexes, numbers by their value.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde_json::Value;

/// One step of a path.
#[derive(Clone, Debug)]
pub enum PathElement<'a> {
    /// `f:NAME`: a field of an object, or a key of a map.
    Field(Cow<'a, str>),
    /// `k:{"name":"web"}`: the item of a list whose fields have these values. Sorted by name.
    Key(Vec<(Cow<'a, str>, Scalar<'a>)>),
    /// `v:"a"`: the item of a set that is this value.
    Value(Scalar<'a>),
    /// `i:3`: an item by its index. Never made here; read and kept.
    Index(i64),
}

/// A value that tells an item of a list from others.
#[derive(Clone, Debug)]
pub enum Scalar<'a> {
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Bool(bool),
    /// A list or an object, which only a malformed key holds.
    Compound(Cow<'a, Value>),
    Null,
}

impl<'a> Scalar<'a> {
    /// Of a part of an object.
    pub fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match number.as_i64() {
                Some(int) => Self::Int(int),
                None => Self::Float(number.as_f64().unwrap_or(f64::MAX)),
            },
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            other => Self::Compound(Cow::Borrowed(other)),
        }
    }

    /// The same, without a borrow.
    pub fn owned(value: Value) -> Scalar<'static> {
        match value {
            Value::String(text) => Scalar::Text(Cow::Owned(text)),
            Value::Array(_) | Value::Object(_) => Scalar::Compound(Cow::Owned(value)),
            Value::Null => Scalar::Null,
            Value::Bool(value) => Scalar::Bool(value),
            Value::Number(number) => match number.as_i64() {
                Some(int) => Scalar::Int(int),
                None => Scalar::Float(number.as_f64().unwrap_or(f64::MAX)),
            },
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Int(_) | Self::Float(_) => 0,
            Self::Text(_) => 1,
            Self::Bool(_) => 2,
            Self::Compound(value) if value.is_array() => 3,
            Self::Compound(_) => 4,
            Self::Null => 5,
        }
    }
}

impl Ord for Scalar<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Int(a), Self::Float(b)) => (*a as f64).total_cmp(b),
            (Self::Float(a), Self::Int(b)) => a.total_cmp(&(*b as f64)),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Compound(a), Self::Compound(b)) if self.rank() == other.rank() => a.to_string().cmp(&b.to_string()),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar<'_> {}

/// As messages show it: text in quotes.
impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Compound(value) => write!(f, "{value}"),
            Self::Null => f.write_str("null"),
        }
    }
}

impl<'a> PathElement<'a> {
    /// The step to a field.
    pub fn field(name: impl Into<Cow<'a, str>>) -> Self {
        Self::Field(name.into())
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl Ord for PathElement<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => a.cmp(b),
            (Self::Value(a), Self::Value(b)) => a.cmp(b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PathElement<'_> {}

/// `.spec`, `[name="web"]`, `[="a"]`, `[3]`
impl fmt::Display for PathElement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}={value}", if at > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// `.spec.containers[name="web"].image`
pub fn display(path: &[PathElement<'_>]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_ordered_as_in_kubernetes() {
        let key = |name: &'static str, value| PathElement::Key(vec![(Cow::Borrowed(name), value)]);
        let ordered = [
            PathElement::field("a"),
            PathElement::field("b"),
            key("name", Scalar::Int(9)),
            key("name", Scalar::Float(9.5)),
            key("name", Scalar::Int(80)),
            key("name", Scalar::Text("9".into())),
            key("port", Scalar::Int(1)),
            PathElement::Value(Scalar::Text("x".into())),
            PathElement::Value(Scalar::Bool(false)),
            PathElement::Index(10),
        ];
        assert!(ordered.is_sorted());
        assert_eq!(display(&ordered[..2]), ".a.b");
        assert_eq!(key("name", Scalar::Text("we\"b".into())).to_string(), r#"[name="we\"b"]"#);
        assert_eq!(PathElement::Value(Scalar::Text("x".into())).to_string(), r#"[="x"]"#);
    }
}
