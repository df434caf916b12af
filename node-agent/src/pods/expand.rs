//! `$(NAME)` in commands, arguments and values: replaced where NAME is defined, unchanged where it is not; `$$` is a
//! dollar.

use std::collections::BTreeMap;

/// `text` with each `$(NAME)` replaced by its variable; `$$` is a dollar sign, and an unknown name stays as it is.
pub fn expand(text: &str, variables: &BTreeMap<&str, &str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        match rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            Some((name, after)) => {
                match variables.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => {
                        expanded.push_str("$(");
                        expanded.push_str(name);
                        expanded.push(')');
                    }
                }
                rest = after;
            }
            None => expanded.push('$'),
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
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
            assert_eq!(expand(text, &variables), expanded, "{text}");
        }
    }
}
