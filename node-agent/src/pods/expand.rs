//! `$(NAME)` in commands, arguments and values: replaced where NAME is defined, unchanged where it is not; `$$` is a
//! dollar.
//!
//! What is put in may itself be expanded text, so that a few lines could make a text of any length: no text is made
//! that no process can be given.

/// Most bytes of one variable (`NAME=value`) or argument, with the zero behind it. Source: `MAX_ARG_STRLEN`, execve(2).
pub const LONGEST: usize = 128 << 10;
/// Most bytes of all variables and arguments of a process, whatever the limit of its stack. Source: execve(2).
pub const MOST_TOGETHER: usize = 6 << 20;

/// A text is longer than a process can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("longer than {LONGEST} bytes, which is the most that a process can be given")]
pub struct TooLong;

/// `text` with each `$(NAME)` replaced by what `variable` gives for it; `$$` is a dollar sign, and an unknown name
/// stays as it is.
pub fn expand<'a>(text: &str, variable: impl Fn(&str) -> Option<&'a str>) -> Result<String, TooLong> {
    let mut expanded = Expanded::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push(&rest[..at])?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push("$")?;
            rest = after;
            continue;
        }
        match rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            Some((name, after)) => {
                match variable(name) {
                    Some(value) => expanded.push(value)?,
                    None => {
                        expanded.push("$(")?;
                        expanded.push(name)?;
                        expanded.push(")")?;
                    }
                }
                rest = after;
            }
            None => expanded.push("$")?,
        }
    }
    expanded.push(rest)?;
    Ok(expanded.text)
}

#[derive(Default)]
struct Expanded {
    text: String,
}

impl Expanded {
    fn push(&mut self, part: &str) -> Result<(), TooLong> {
        if self.text.len().saturating_add(part.len()) >= LONGEST {
            return Err(TooLong);
        }
        self.text.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn defined_names_are_replaced_and_all_else_is_kept() {
        let variables = BTreeMap::from([("A", "1"), ("EMPTY", "")]);
        for (text, expanded) in [
            ("$(A)-$(A)", "1-1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$(EMPTY)x", "x"),
            ("$(A", "$(A"),
            ("a$", "a$"),
            ("$A", "$A"),
            ("ü$(A)", "ü1"),
        ] {
            assert_eq!(expand(text, |name| variables.get(name).copied()).unwrap(), expanded, "{text}");
        }
    }

    #[test]
    fn no_text_is_made_that_no_process_can_be_given() {
        let value = "x".repeat(1 << 10);
        let of = |times: usize| expand(&"$(A)".repeat(times), |_| Some(&value));
        assert_eq!(of(127).unwrap().len(), 127 << 10);
        assert_eq!(of(128), Err(TooLong), "the zero at its end counts");
        assert_eq!(of(500_000), Err(TooLong));
    }
}
