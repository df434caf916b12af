//! From a structural schema to what expressions may say about its values, with the sizes that bound their cost.
//!
//! Source: `k8s.io/apiserver/pkg/cel/common/schemas.go` and `escaping.go`.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    MAX_REQUEST,
    typing::{Decl, DeclType, Type},
};
use crate::custom::structural::{Additional, Structural};

/// What is declared by a schema; `None` where expressions cannot see the values. `is_resource` adds type and metadata.
pub fn declare(schema: &Structural, is_resource: bool, name: &str) -> Option<Arc<Decl>> {
    let scalar = |scalar: Type, min_size: u64, max_elements: u64| {
        Some(Arc::new(Decl { r#type: DeclType::Scalar(scalar), max_elements, min_size }))
    };
    if schema.int_or_string {
        let most = schema.checks.max_length.map_or(MAX_REQUEST - 2, in_bytes);
        return scalar(Type::Dyn, 1, most);
    }
    match schema.r#type.as_str() {
        "array" => {
            let item = schema.items.as_deref()?;
            let item = declare(item, item.embedded, &format!("{name}.@idx"))?;
            let most = schema.checks.max_items.map(not_negative);
            let most = most.unwrap_or((MAX_REQUEST - 2) / (item.min_size + 1));
            Some(Arc::new(Decl { r#type: DeclType::List(item), max_elements: most, min_size: 2 }))
        }
        "object" => object(schema, is_resource, name),
        "string" => string(schema),
        "boolean" => scalar(Type::Bool, 4, 1),
        "number" => scalar(Type::Double, 1, 1),
        "integer" => scalar(Type::Int, 1, 1),
        _ => None,
    }
}

fn object(schema: &Structural, is_resource: bool, name: &str) -> Option<Arc<Decl>> {
    if let Additional::Of(values) = &schema.additional {
        let value = declare(values, values.embedded, &format!("{name}.@prop"))?;
        let most = schema.checks.max_properties.map(not_negative);
        let most = most.unwrap_or((MAX_REQUEST - 2) / (value.min_size + 6));
        return Some(Arc::new(Decl { r#type: DeclType::Map(value), max_elements: most, min_size: 2 }));
    }
    let mut fields = BTreeMap::new();
    let mut min_size = 2_u64;
    for (field, property) in &schema.properties {
        let Some(decl) = declare(property, property.embedded, &format!("{name}.{field}")) else { continue };
        if schema.checks.required.contains(field) && property.default.is_none() {
            min_size = min_size.saturating_add(field.len() as u64 + 4).saturating_add(decl.min_size);
        }
        if let Some(escaped) = escape(field) {
            fields.insert(escaped, decl);
        }
    }
    if is_resource {
        add_metadata(&mut fields, name);
    }
    let r#type = DeclType::Object { name: name.to_owned(), fields };
    Some(Arc::new(Decl { r#type, max_elements: 1, min_size }))
}

/// Type and names are known of every resource, whatever its schema says.
fn add_metadata(fields: &mut BTreeMap<String, Arc<Decl>>, name: &str) {
    let text = || Arc::new(Decl { r#type: DeclType::Scalar(Type::String), max_elements: MAX_REQUEST - 2, min_size: 2 });
    for field in ["kind", "apiVersion"] {
        fields.insert(field.to_owned(), text());
    }
    let known = fields.get("metadata").and_then(|metadata| match &metadata.r#type {
        DeclType::Object { fields, .. } => Some(fields.clone()),
        _ => None,
    });
    let mut metadata = known.unwrap_or_default();
    for field in ["name", "generateName"] {
        metadata.entry(field.to_owned()).or_insert_with(text);
    }
    let r#type = DeclType::Object { name: format!("{name}.metadata"), fields: metadata };
    fields.insert("metadata".to_owned(), Arc::new(Decl { r#type, max_elements: 1, min_size: 2 }));
}

fn string(schema: &Structural) -> Option<Arc<Decl>> {
    let max_length = schema.checks.max_length;
    let (scalar, min_size, max_elements) = match schema.format.as_str() {
        "byte" => (Type::Bytes, 2, max_length.map_or(MAX_REQUEST - 2, not_negative)),
        "duration" => (Type::Duration, 4, 19),
        "date" => (Type::Timestamp, 12, 12),
        "date-time" => (Type::Timestamp, 22, 27),
        _ => {
            let longest = schema.checks.r#enum.iter().filter_map(serde_json::Value::as_str).map(str::len).max();
            let most = match (max_length, longest) {
                (Some(most), _) => in_bytes(most),
                (None, Some(longest)) => longest as u64,
                (None, None) => MAX_REQUEST - 2,
            };
            (Type::String, 2, most)
        }
    };
    Some(Arc::new(Decl { r#type: DeclType::Scalar(scalar), max_elements, min_size }))
}

fn not_negative(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// A character may have four bytes.
fn in_bytes(characters: i64) -> u64 {
    not_negative(characters).saturating_mul(4)
}

const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether CEL reads the word otherwise than as a name.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The name of a field as expressions write it: `a-b` is `a__dash__b`. `None` if there is no such form.
pub fn escape(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if first.is_ascii_digit() || RESERVED.contains(&name) {
        return RESERVED.contains(&name).then(|| format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '_' if rest.starts_with("__") => {
                out.push_str("__underscores__");
                &rest[2..]
            }
            '.' | '-' | '/' => {
                out.push_str(match c {
                    '.' => "__dot__",
                    '-' => "__dash__",
                    _ => "__slash__",
                });
                &rest[1..]
            }
            c if c.is_ascii_alphanumeric() || c == '_' => {
                out.push(c);
                &rest[1..]
            }
            _ => return None,
        };
    }
    Some(out)
}

/// The field that an escaped name stands for.
pub fn unescape(escaped: &str) -> String {
    if !escaped.contains("__") {
        return escaped.to_owned();
    }
    if let Some(reserved) = escaped.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && RESERVED.contains(&reserved)
    {
        return reserved.to_owned();
    }
    let mut out = String::new();
    let mut rest = escaped;
    while !rest.is_empty() {
        let words = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
        match words.iter().find_map(|(word, meant)| Some((rest.strip_prefix(word)?, *meant))) {
            Some((after, meant)) => {
                out.push_str(meant);
                rest = after;
            }
            None => {
                let end = rest.char_indices().nth(1).map_or(rest.len(), |(at, _)| at);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_come_back() {
        for (name, escaped) in [
            ("a", "a"),
            ("namespace", "__namespace__"),
            ("a.b", "a__dot__b"),
            ("x-prop", "x__dash__prop"),
            ("a/b", "a__slash__b"),
            ("redact__d", "redact__underscores__d"),
            ("self", "self"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(escaped));
            assert_eq!(unescape(escaped), name);
        }
        assert_eq!(escape("1a"), None);
        assert_eq!(escape("a b"), None);
    }
}
