//! What a client sent, as a refusal shows it: shortened, so that a long request has no long answer.

use std::borrow::Cow;

/// The longest name that Kubernetes has (RFC 1123 subdomains), bytes.
pub const NAME: usize = 253;
/// The longest message to whom nothing was allowed yet, bytes.
pub const MESSAGE: usize = 1024;

/// `text` with at most so many bytes of it, and a sign that there is more.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.len() <= most {
        true => text.into(),
        false => format!("{}…", &text[..text.floor_char_boundary(most)]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_shown_in_part_and_no_character_is_split() {
        assert_eq!(shortened("pods", 4), "pods");
        assert_eq!(shortened("pods/log", 4), "pods…");
        assert_eq!(shortened("aéé", 4), "aé…");
    }
}
