//! Paths of a schema's fields in the dotted notation of `fieldPath` and `selectableFields`: `.spec.a['b.c']`.

use super::{Additional, Structural};

/// Why a text names no field. The words are those of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldPathError {
    /// It ends in the middle of a name.
    #[error("unexpected end of JSON path")]
    UnexpectedEnd,
    /// The schema has no such field.
    #[error("does not refer to a valid field")]
    NoField,
    /// `['…']` where only dots may stand.
    #[error("array notation is not allowed")]
    Brackets,
    /// A name begins with neither of both.
    #[error("expected [ or . but got: {0}")]
    NoSeparator(String),
    /// `[a]`
    #[error("expected single quoted string but got {0}")]
    NotQuoted(String),
    /// `['a'b`
    #[error("expected ] but got {0}")]
    NotClosed(String),
    /// `['\x']`
    #[error("invalid string literal: invalid escape char \\{0}")]
    Escape(char),
}

/// The path that errors show for `text`, and the schema of the field it names.
pub fn resolve<'s>(
    text: &str,
    schema: &'s Structural,
    brackets: bool,
) -> Result<(String, &'s Structural), FieldPathError> {
    let mut at = schema;
    let mut shown = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let name;
        match first {
            '.' => {
                let end = rest[1..].find(['.', '[', ']']).map_or(rest.len(), |end| end + 1);
                name = rest[1..end].to_owned();
                if name.is_empty() {
                    return Err(match rest.len() {
                        1 => FieldPathError::UnexpectedEnd,
                        _ => FieldPathError::NoField,
                    });
                }
                rest = &rest[end..];
            }
            '[' if !brackets => return Err(FieldPathError::Brackets),
            '[' => {
                let (inner, after) = quoted(&rest[1..])?;
                name = inner;
                rest = after;
            }
            _ => {
                let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
                return Err(FieldPathError::NoSeparator(rest[..end].to_owned()));
            }
        }
        (at, shown) = match (&at.additional, at.properties.is_empty()) {
            (_, false) => {
                let property = at.properties.get(&name).ok_or(FieldPathError::NoField)?;
                let dot = if shown.is_empty() { "" } else { "." };
                (property, format!("{shown}{dot}{name}"))
            }
            (Additional::Of(schema), true) => (&**schema, format!("{shown}[{name}]")),
            _ => return Err(FieldPathError::NoField),
        };
    }
    Ok((shown, at))
}

/// The text of `'…']` with its escapes undone, and what follows.
fn quoted(text: &str) -> Result<(String, &str), FieldPathError> {
    let Some(inner) = text.strip_prefix('\'') else {
        let end = text.find(['.', '[', ']']).unwrap_or(text.len());
        return Err(match text {
            "" => FieldPathError::UnexpectedEnd,
            text => FieldPathError::NotQuoted(text[..end].to_owned()),
        });
    };
    let mut out = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => {
                let rest = &inner[at + 1..];
                return match rest.strip_prefix(']') {
                    Some(rest) => Ok((out, rest)),
                    None if rest.is_empty() => Err(FieldPathError::UnexpectedEnd),
                    None => Err(FieldPathError::NotClosed(rest.to_owned())),
                };
            }
            '\\' => match chars.next() {
                Some((_, 'a')) => out.push('\u{7}'),
                Some((_, 'b')) => out.push('\u{8}'),
                Some((_, 'f')) => out.push('\u{c}'),
                Some((_, 'n')) => out.push('\n'),
                Some((_, 'r')) => out.push('\r'),
                Some((_, 't')) => out.push('\t'),
                Some((_, 'v')) => out.push('\u{b}'),
                Some((_, c @ ('\'' | '\\'))) => out.push(c),
                Some((_, c)) => return Err(FieldPathError::Escape(c)),
                None => return Err(FieldPathError::UnexpectedEnd),
            },
            c => out.push(c),
        }
    }
    Err(FieldPathError::UnexpectedEnd)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_name_properties_and_keys_of_maps() {
        let schema = Structural::read(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a.b": {"type": "string"},
                "map": {"type": "object", "additionalProperties": {"type": "integer"}}}}}}));
        let shown = |text: &str| resolve(text, &schema, true).map(|(path, found)| (path, found.r#type.clone()));
        assert_eq!(shown(".spec.map['x']"), Ok(("spec.map[x]".into(), "integer".into())));
        assert_eq!(shown(".spec['a.b']"), Ok(("spec.a.b".into(), "string".into())));
        for (wrong, why) in [
            ("spec", "expected [ or . but got: spec"),
            (".spec.nope", "does not refer to a valid field"),
            (".", "unexpected end of JSON path"),
            (".spec['a.b'", "unexpected end of JSON path"),
            (".spec['a'b", "expected ] but got b"),
            (".spec['\\x']", "invalid string literal: invalid escape char \\x"),
            (".spec[a]", "expected single quoted string but got a"),
            (".spec.", "unexpected end of JSON path"),
            ("..spec", "does not refer to a valid field"),
        ] {
            assert_eq!(shown(wrong).unwrap_err().to_string(), why, "{wrong}");
        }
        assert_eq!(resolve(".spec['a.b']", &schema, false).unwrap_err(), FieldPathError::Brackets);
    }
}
