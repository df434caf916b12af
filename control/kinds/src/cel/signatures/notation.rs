//! How the table of functions is written: one line each, `name(types) result`, or `type.name(types) result` for those
//! called on a value. `A` and `B` stand for any type, the same throughout a line.

use super::Signature;
use crate::cel::typing::Type;

/// Reads a line of the table: the name of a function, and one way to call it.
pub fn read(line: &'static str) -> (&'static str, Signature) {
    let (open, close) = parentheses(line);
    let (callee, result) = (&line[..open], line[close + 1..].trim());
    let mut arguments: Vec<Type> = split(&line[open + 1..close]).into_iter().map(r#type).collect();
    let member = callee.rsplit_once('.').filter(|(target, name)| {
        let of_format = *target == "format" && *name != "validate";
        is_type(target) && callee != "ip.isCanonical" && !of_format
    });
    let name = match member {
        Some((target, name)) => {
            arguments.insert(0, r#type(target));
            name
        }
        None => callee,
    };
    (name, Signature { is_member: member.is_some(), arguments, result: r#type(result) })
}

/// Where the arguments begin and end: types before and after them may have parentheses, too.
fn parentheses(line: &str) -> (usize, usize) {
    let (mut depth, mut open) = (0_i32, 0);
    for (at, c) in line.char_indices() {
        match c {
            '(' => {
                if depth == 0 {
                    open = at;
                }
                depth += 1;
            }
            ')' => {
                depth -= 1;
                if depth == 0 && line[at..].starts_with(") ") {
                    return (open, at);
                }
            }
            _ => {}
        }
    }
    panic!("a signature has arguments and a result: {line}")
}

fn split(text: &'static str) -> Vec<&'static str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

const OPAQUE: &[(&str, &str)] = &[
    ("url", "kubernetes.URL"),
    ("quantity", "kubernetes.Quantity"),
    ("ip", "net.IP"),
    ("cidr", "net.CIDR"),
    ("format", "kubernetes.NamedFormat"),
    ("semver", "kubernetes.Semver"),
    ("authorizer", "kubernetes.authorization.Authorizer"),
    ("pathcheck", "kubernetes.authorization.PathCheck"),
    ("groupcheck", "kubernetes.authorization.GroupCheck"),
    ("resourcecheck", "kubernetes.authorization.ResourceCheck"),
    ("decision", "kubernetes.authorization.Decision"),
];

fn is_type(word: &str) -> bool {
    let simple =
        ["dyn", "null", "bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration", "type", "A", "B"];
    simple.contains(&word) || word.ends_with(')') || OPAQUE.iter().any(|(short, _)| *short == word)
}

fn r#type(word: &'static str) -> Type {
    match word {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Meta,
        "A" => Type::Var(0),
        "B" => Type::Var(1),
        _ => {
            if let Some((_, name)) = OPAQUE.iter().find(|(short, _)| *short == word) {
                return Type::Opaque(name);
            }
            let (outer, inner) = word.split_once('(').unwrap_or_else(|| panic!("unknown type {word}"));
            let inner = split(inner.strip_suffix(')').unwrap_or(inner));
            match (outer, inner.as_slice()) {
                ("list", [item]) => Type::list(r#type(item)),
                ("optional", [inner]) => Type::Optional(Box::new(r#type(inner))),
                ("map", [key, value]) => Type::map(r#type(key), r#type(value)),
                _ => panic!("unknown type {word}"),
            }
        }
    }
}
