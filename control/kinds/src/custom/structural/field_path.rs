//! Paths of a schema's fields in the dotted notation of `fieldPath` and `selectableFields`: `.spec.a['b.c']`.

use super::{Additional, Structural};

/// The path that errors show for `text`, and the schema of the field it names; or why it names none.
pub fn resolve<'s>(text: &str, schema: &'s Structural, brackets: bool) -> Result<(String, &'s Structural), String> {
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
                        1 => "unexpected end of JSON path".to_owned(),
                        _ => "does not refer to a valid field".to_owned(),
                    });
                }
                rest = &rest[end..];
            }
            '[' if !brackets => return Err("array notation is not allowed".to_owned()),
            '[' => {
                let (inner, after) = quoted(&rest[1..])?;
                name = inner;
                rest = after;
            }
            _ => {
                let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
                return Err(format!("expected [ or . but got: {}", &rest[..end]));
            }
        }
        (at, shown) = match (&at.additional, at.properties.is_empty()) {
            (_, false) => {
                let property = at.properties.get(&name).ok_or("does not refer to a valid field")?;
                let dot = if shown.is_empty() { "" } else { "." };
                (property, format!("{shown}{dot}{name}"))
            }
            (Additional::Of(schema), true) => (&**schema, format!("{shown}[{name}]")),
            _ => return Err("does not refer to a valid field".to_owned()),
        };
    }
    Ok((shown, at))
}

/// The text of `'…']` with its escapes undone, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let end_of_path = || "unexpected end of JSON path".to_owned();
    let Some(inner) = text.strip_prefix('\'') else {
        let end = text.find(['.', '[', ']']).unwrap_or(text.len());
        return Err(if text.is_empty() {
            end_of_path()
        } else {
            format!("expected single quoted string but got {}", &text[..end])
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
                    None if rest.is_empty() => Err(end_of_path()),
                    None => Err(format!("expected ] but got {rest}")),
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
                Some((_, c)) => return Err(format!("invalid string literal: invalid escape char \\{c}")),
                None => return Err(end_of_path()),
            },
            c => out.push(c),
        }
    }
    Err(end_of_path())
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
        for wrong in ["spec", ".spec.nope", ".", ".spec['a.b'", ".spec[a]", ".spec.", "..spec"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        assert_eq!(resolve(".spec['a.b']", &schema, false).unwrap_err(), "array notation is not allowed");
    }
}
