//! Cuts a text into documents and each document into objects. Pure.

use serde_json::Value;

use super::{Location, Manifest};
use crate::yaml;

/// Why a document holds no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: document {document}, line {line}: {message}")]
pub struct Problem {
    /// As the user named it; `-` for standard input.
    pub file: String,
    /// Counted from 1, over the documents that hold something.
    pub document: usize,
    /// Counted from 1, in the whole file.
    pub line: u64,
    /// The problem and what would be right.
    pub message: String,
}

/// The objects of `text`, in order. A `List` stands for its items.
pub fn parse(file: &str, text: &str) -> Vec<Result<Manifest, Problem>> {
    let mut results = Vec::new();
    for (location, text) in split(file, text) {
        match yaml::read(text) {
            Ok(Value::Null) => {}
            Ok(object) => expand(&location, object, &mut results),
            Err(error) => results.push(Err(Problem {
                file: location.file,
                document: location.document,
                line: location.line.saturating_add(error.line).saturating_sub(1),
                message: format!("{}; {}", error.problem, error.remedy),
            })),
        }
    }
    results
}

/// Documents are separated by lines that begin with `---`, behind which only a comment may stand, as for kubectl.
fn split<'t>(file: &str, text: &'t str) -> Vec<(Location, &'t str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    let mut push = |from: usize, to: usize, line: u64| {
        let content = &text[from..to];
        let blank = content.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
        if !blank {
            documents.push((Location { file: file.to_owned(), document: documents.len() + 1, line }, content));
        }
    };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            push(start, offset, start_line);
            start = offset + line.len();
            start_line = line_number(number) + 1;
        }
        offset += line.len();
    }
    push(start, text.len(), start_line);
    documents
}

/// Lines are counted from 1.
fn line_number(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1)
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| {
        let rest = rest.trim();
        rest.is_empty() || rest.starts_with('#')
    })
}

fn expand(location: &Location, mut object: Value, results: &mut Vec<Result<Manifest, Problem>>) {
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && object["items"].is_array();
    if is_list {
        if let Value::Array(items) = object["items"].take() {
            items.into_iter().for_each(|item| expand(location, item, results));
        }
        return;
    }
    results.push(check(&object).map(|()| Manifest { location: location.clone(), object }).map_err(|lack| Problem {
        file: location.file.clone(),
        document: location.document,
        line: location.line,
        message: lack.to_string(),
    }));
}

/// What an object lacks, and what would be right.
#[derive(Debug, thiserror::Error)]
enum Lack {
    /// A list, a text or a number.
    #[error("not an object; it must be a map with apiVersion, kind and metadata")]
    NotAMap,
    #[error("{path} is not set; add for instance `{example}`")]
    Unset { path: &'static str, example: &'static str },
    #[error("{path} is empty; write for instance `{example}`")]
    Empty { path: &'static str, example: &'static str },
    #[error("{path} is {value}, which is not a string; quote it: \"{value}\"")]
    NotAString { path: String, value: Value },
    #[error("metadata.name is not set; add `metadata:` with `name: …` under it")]
    NoName,
    #[error("metadata is not a map; write `metadata:` and below it, indented, `name: …`")]
    MetadataNotAMap,
}

/// What any object needs before a server can be asked about it.
fn check(object: &Value) -> Result<(), Lack> {
    if !object.is_object() {
        return Err(Lack::NotAMap);
    }
    let text = |value: &Value, path: &'static str, example: &'static str| match value {
        Value::String(text) if !text.is_empty() => Ok(()),
        Value::Null => Err(Lack::Unset { path, example }),
        Value::String(_) => Err(Lack::Empty { path, example }),
        other => Err(Lack::NotAString { path: path.to_owned(), value: other.clone() }),
    };
    text(&object["apiVersion"], "apiVersion", "apiVersion: v1")?;
    text(&object["kind"], "kind", "kind: Service")?;
    let metadata = &object["metadata"];
    if metadata.is_null() || (metadata.is_object() && metadata["name"].is_null() && metadata["generateName"].is_null())
    {
        return Err(Lack::NoName);
    }
    if !metadata.is_object() {
        return Err(Lack::MetadataNotAMap);
    }
    if metadata["generateName"].is_null() {
        text(&metadata["name"], "metadata.name", "name: web")?;
    }
    for key in ["labels", "annotations"] {
        for (name, value) in metadata[key].as_object().into_iter().flatten() {
            if !value.is_string() {
                return Err(Lack::NotAString { path: format!("metadata.{key}.{name}"), value: value.clone() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n";

    #[test]
    fn documents_are_counted_and_blank_ones_are_not() {
        let text = format!("# a comment\n---\n{POD}---\n\n--- # second\n{}", POD.replace("name: a", "name: b"));
        let found: Vec<_> = parse("f", &text).into_iter().map(|r| r.expect("valid")).collect();
        let places: Vec<_> =
            found.iter().map(|m| (m.name().to_owned(), m.location.document, m.location.line)).collect();
        assert_eq!(places, [("a".to_owned(), 1, 3), ("b".to_owned(), 2, 10)]);
    }

    #[test]
    fn a_broken_document_is_named_and_the_others_are_kept() {
        let text = format!("{POD}---\napiVersion: v1\nkind: [\n---\n{POD}");
        let results = parse("web.yaml", &text);
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        let problem = results[1].as_ref().expect_err("broken").to_string();
        assert!(problem.starts_with("web.yaml: document 2, line "), "{problem}");
    }

    #[test]
    fn a_list_gives_its_items() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- \
            apiVersion: v1\n  kind: Pod\n";
        let results = parse("f", text);
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn json_is_read_too() {
        let results = parse("f", r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}"#);
        assert_eq!(results[0].as_ref().expect("valid").name(), "a");
    }

    #[test]
    fn a_label_that_is_no_string_is_explained() {
        let text = format!("{POD}  labels:\n    on-call: yes\n");
        let problem = parse("f", &text)[0].as_ref().expect_err("a boolean label").to_string();
        assert!(problem.contains("metadata.labels.on-call is true"), "{problem}");
    }
}
