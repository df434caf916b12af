//! Text that others wrote, as it may be shown on a terminal: without the sequences that a terminal obeys.
//!
//! Whoever runs a pod says what its termination message is, and a webhook why it refuses; neither may set the window's
//! title, clear the screen or fill the clipboard of who looks (CVE-2021-25743). Data (`-o json`, `-o yaml`, `-o
//! jsonpath`) and what containers print (`logs`, `exec`) is not changed: see kubectl's `terminal.EscapeTerminal`.

use std::{borrow::Cow, fmt::Write as _};

/// `text` with its control characters shown: `^[` for the escape. Line breaks and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().saturating_add(16));
    for character in text.chars() {
        match character {
            '\r' => shown.push_str("\\r"),
            '\u{1b}' => shown.push_str("^["),
            other if is_obeyed(other) => {
                write!(shown, "{}", other.escape_unicode()).expect("writing to a string cannot fail");
            }
            other => shown.push(other),
        }
    }
    Cow::Owned(shown)
}

fn is_obeyed(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_of_what_others_wrote() {
        let evil = "a\u{1b}]52;c;ZXZpbA==\u{7}b\u{1b}[2J\rc\u{9b}31md\te\nf é";
        assert_eq!(printable(evil), "a^[]52;c;ZXZpbA==\\u{7}b^[[2J\\rc\\u{9b}31md\te\nf é");
        assert!(matches!(printable("plain\n"), Cow::Borrowed("plain\n")));
    }
}
