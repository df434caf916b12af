//! The words of Go's converter from unstructured objects, which reads what a strategic merge patch has made: it knows
//! of no text, so that it says less than `encoding/json` does.
//!
//! Source: `fromUnstructured` of `k8s.io/apimachinery/pkg/runtime/converter.go`.

use crate::schema::{Type, TypeId, Types};

/// What a JSON value is to the converter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A text.
    String,
    /// A number without a fraction, of 64 bits.
    Integer,
    /// Any other number.
    Fraction,
    /// `true` or `false`.
    Bool,
    /// A list.
    Array,
    /// An object.
    Object,
}

impl ValueKind {
    /// As Go's package `reflect` names it.
    fn go_name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "int64",
            Self::Fraction => "float64",
            Self::Bool => "bool",
            Self::Array => "slice",
            Self::Object => "map",
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Fraction)
    }
}

/// Why a value cannot become one of the type `id`; `None` where the type reads itself, in the words of `encoding/json`.
pub fn cannot_restore(found: ValueKind, types: &Types, id: TypeId) -> Option<String> {
    let name = found.go_name();
    Some(match types.get(id) {
        Type::Object(_) => format!("cannot restore struct from: {name}"),
        Type::List(_) => format!("cannot restore slice from {name}"),
        Type::Map(_) => format!("cannot restore map from {name}"),
        Type::Bytes => format!("cannot restore slice from {name}"),
        Type::String => scalar(found, "string"),
        Type::Int32 => scalar(found, "int32"),
        Type::Int64 => scalar(found, "int64"),
        Type::Double => scalar(found, "float64"),
        Type::Bool => scalar(found, "bool"),
        Type::Time | Type::MicroTime | Type::Quantity | Type::IntOrString | Type::Any => return None,
    })
}

/// The same for a plain Go type: Go converts a number to any other number, and a whole one to the text that it encodes.
pub fn scalar(found: ValueKind, go_type: &str) -> String {
    let is_convertible = match go_type {
        "bool" => false,
        "string" => found == ValueKind::Integer,
        _ => found.is_number(),
    };
    match is_convertible {
        true => format!("cannot convert {} to {go_type}", found.go_name()),
        false => format!("unrecognized type: {go_type}"),
    }
}
