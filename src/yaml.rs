//! YAML as Kubernetes reads and writes it: YAML 1.1 scalars (`yes`, `on`, `0644`) as sigs.k8s.io/yaml has them,
//! duplicate keys refused, locations in errors. Knows nothing of objects.

use serde_json::Value;
use serde_yaml as saphyr;

/// A text that is not YAML, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}; {remedy}")]
pub struct YamlError {
    /// Counted from 1, within the text that was given.
    pub line: u64,
    /// What the parser stumbled over.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

/// Reads one document. An empty one is `Null`.
pub fn read(text: &str) -> Result<Value, YamlError> {
    let options = saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    let value: Value = saphyr::from_str_with_options(text, options).map_err(|error| explain(text, &error))?;
    Ok(whole_numbers(value))
}

/// Writes one document in kubectl's style: keys in order, lists not indented.
pub fn write(value: &Value) -> anyhow::Result<String> {
    let options = saphyr::ser_options! { compact_list_indent: true, prefer_block_scalars: true, folded_wrap_chars: usize::MAX, empty_as_braces: true };
    Ok(saphyr::to_string_with_options(&sorted(value), options)?)
}

/// The same value with the keys of all maps in order, as Go writes maps.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// `1.0` and `1e3` are integers once they are JSON numbers in Go: 2^53 is the limit up to which that loses nothing.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 => {
                // Exact: the limit keeps it in the range of whole numbers that a float can hold.
                #[allow(clippy::cast_possible_truncation)]
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(whole_numbers).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, whole_numbers(value))).collect()),
        other => other,
    }
}

fn explain(text: &str, error: &saphyr::Error) -> YamlError {
    let error = error.without_snippet();
    let mut line = error.location().map_or(0, |location| location.line());
    let mut problem = error.to_string();
    // The crate ends its messages with the place, which is told in our own way, or with advice to programmers.
    for end in [" at line ", ", set DuplicateKeyPolicy"] {
        if let Some(cut) = problem.find(end) {
            problem.truncate(cut);
        }
    }
    if let Some(tab) = text.lines().position(|l| l.trim_start_matches(' ').starts_with('\t') && !l.trim().is_empty()) {
        line = u64::try_from(tab).unwrap_or(u64::MAX).saturating_add(1);
        problem = "a tab is used for indentation".into();
    }
    let remedy = remedy(&problem);
    YamlError { line: line.max(1), problem, remedy: remedy.into() }
}

fn remedy(problem: &str) -> &'static str {
    let problem = problem.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| problem.contains(word));
    if any(&["a tab "]) {
        "indent with spaces"
    } else if any(&["duplicate"]) {
        "keep one of the two keys"
    } else if any(&["unclosed", "quoted", "unterminated", "eof", "end of stream"]) {
        "close the quote or bracket that is open here"
    } else if any(&["mapping values", "value"]) {
        "write one `key: value` per line, and quote a text that contains `: `"
    } else if any(&["anchor", "alias"]) {
        "define the anchor with `&name` before using `*name`"
    } else {
        "keys of one map stand in one column, list items begin with `- `, and each key ends with `: `"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        let text = "a: yes\nb: on\nc: 0644\nd: 0o17\ne: 1e3\nf: 2001-01-01\ng: ~\nh: \"yes\"\ni: 0x1f\nj: \
            12:30:45\nk: 1.0\nl: 0b11\nm: Null\nn: +5\no: .5\np: OFF\nq: |\n  x\n";
        assert_eq!(
            read(text).expect("valid YAML"),
            json!({"a": true, "b": true, "c": 420, "d": 15, "e": 1000, "f": "2001-01-01", "g": null, "h": "yes",
                "i": 31,
                "j": "12:30:45", "k": 1, "l": 3, "m": null, "n": 5, "o": 0.5, "p": false, "q": "x\n"})
        );
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let value = json!({"a": "yes", "b": "0644", "c": "1e3", "d": "on", "e": "null", "f": "", "g": "a: b",
            "h": "x\ny\n",
            "i": [], "j": {}, "k": [{"name": "x"}, {"name": "y"}], "l": "- x", "m": true, "n": 12, "o": "12",
                "p": "#x", "q": "*x"});
        let text = write(&value).expect("serialisable");
        assert_eq!(read(&text).expect("own output"), value, "{text}");
    }

    #[test]
    fn lists_are_written_in_the_column_of_their_key() {
        let text = write(&json!({"spec": {"ports": [{"port": 80, "name": "http"}]}})).expect("serialisable");
        assert_eq!(text.trim_end(), "spec:\n  ports:\n  - name: http\n    port: 80");
    }

    #[test]
    fn a_duplicate_key_is_refused_with_its_line() {
        let error = read("a: 1\nb: 2\na: 3\n").expect_err("duplicate");
        assert_eq!((error.line, error.remedy.as_str()), (3, "keep one of the two keys"));
    }

    #[test]
    fn a_tab_is_named_as_such() {
        let error = read("a:\n\tb: 1\n").expect_err("a tab");
        assert_eq!((error.line, error.remedy.as_str()), (2, "indent with spaces"));
    }

    #[test]
    fn an_open_quote_is_named_as_such() {
        let error = read("a: \"x\nb: 1\n").expect_err("an open quote");
        assert!(error.remedy.contains("close the quote"), "{error}");
    }
}
