//! The name under which a client's changes are kept: `fieldManager`, or what its `User-Agent` begins with.

use serde_json::Value;

use crate::kinds::FieldError;

/// The longest name, in bytes.
const MAX_LENGTH: usize = 128;

/// Whom changes belong to whose client says nothing of itself.
const UNKNOWN: &str = "unknown";

/// The name for a request: what it says, or the first word of its user agent.
pub fn of(field_manager: Option<&str>, user_agent: &str) -> String {
    let name = match field_manager.filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => first_word(user_agent),
    };
    if name.is_empty() { UNKNOWN.to_owned() } else { name }
}

/// What stands before the slash, without what cannot be printed, and no longer than a name may be.
fn first_word(user_agent: &str) -> String {
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars().filter(|c| is_printable(*c)) {
        if name.len() + c.len_utf8() > MAX_LENGTH {
            break;
        }
        name.push(c);
    }
    name
}

/// What is wrong with a name that a client gave.
pub fn check(name: &str) -> Vec<FieldError> {
    const PATH: &str = "fieldManager";
    let mut errors = Vec::new();
    if name.len() > MAX_LENGTH {
        errors.push(FieldError::too_long(PATH, MAX_LENGTH));
    }
    for (at, c) in name.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid(PATH, &Value::from(name), why));
    }
    errors
}

/// As Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    c == ' ' || !c.is_control() && !c.is_whitespace() && !is_format_or_private(c)
}

fn is_format_or_private(c: char) -> bool {
    matches!(u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f
        | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xe0001..=0xe007f | 0xf0000..=0x10ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_agent_names_who_does_not_name_themselves() {
        assert_eq!(of(Some("me"), "kubectl/v1.35"), "me");
        assert_eq!(of(None, "kubectl/v1.35 (linux/amd64)"), "kubectl");
        assert_eq!(of(Some(""), "a b\u{7}c"), "a bc");
        assert_eq!(of(None, ""), "unknown");
        assert_eq!(of(None, &"ä".repeat(100)).len(), 128);
    }

    #[test]
    fn names_are_short_and_printable() {
        assert!(check("kubectl-client-side-apply é").is_empty());
        assert_eq!(check(&"a".repeat(129)).len(), 1);
        let error = &check("a\u{7}\u{200b}")[0];
        assert_eq!(error.message, "Invalid value: \"a\\a\\u200b\": invalid character U+0007 (at position 1)");
        assert_eq!(check("a\u{7}\u{200b}").len(), 2);
    }
}
