//! Field selectors: `metadata.name=a,status.phase!=Running`. Which fields a kind has is the kind's own.

use std::str::FromStr;

use crate::{kinds::Kind, status::Status, store::Header};

/// All terms hold, or the object is not selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Whether it selects all.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it selects an object of this header.
    pub fn matches(&self, header: Header<'_>) -> bool {
        self.terms.iter().all(|term| {
            let value = match term.field.as_str() {
                "metadata.name" => header.name(),
                "metadata.namespace" => header.namespace(),
                field => header.field(field).unwrap_or_default(),
            };
            (value == term.value) == term.equal
        })
    }

    /// The same selector with the fields named as the stored kind names them: [`FieldSelector::matches`] and indexes
    /// know no other names.
    pub fn stored(&self, kind: &Kind) -> Self {
        let terms =
            self.terms.iter().map(|term| Term { field: (kind.stored_field)(&term.field).to_owned(), ..term.clone() });
        Self { terms: terms.collect() }
    }

    /// Refuses fields that the (served) kind does not select by.
    pub fn check(&self, kind: &Kind) -> Result<(), Status> {
        let known = (kind.selectable)(&serde_json::Value::Null);
        for Term { field, .. } in &self.terms {
            let general = matches!(field.as_str(), "metadata.name" | "metadata.namespace");
            if !general && !known.contains_key(field.as_str()) {
                return Err(Status::bad_request(not_supported(kind, field, known.is_empty())));
            }
        }
        Ok(())
    }

    /// Each term: the field, whether it must have the value, and the value.
    pub fn terms(&self) -> impl Iterator<Item = (&str, bool, &str)> {
        self.terms.iter().map(|term| (&*term.field, term.equal, &*term.value))
    }

    /// The value that `field` of every selected object has, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// The one name that can match, if the selector says so.
    pub fn name(&self) -> Option<&str> {
        self.exact("metadata.name")
    }
}

/// Why a text is no field selector. The texts are those of Kubernetes' parser.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A part between commas without an operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    NoOperator {
        /// The whole selector.
        selector: String,
        /// The part.
        term: String,
    },
    /// A backslash before something else than a backslash, a comma or an equals sign, or an equals sign without one.
    #[error("invalid field selector: invalid escape sequence in {term:?}")]
    Escape {
        /// The part between commas.
        term: String,
    },
}

/// Kubernetes' words for a field that a kind is not selected by; they are not the same for all kinds.
fn not_supported(kind: &Kind, field: &str, has_no_fields: bool) -> String {
    match (&*kind.group, &*kind.kind) {
        ("batch", "Job") => format!("field label {field:?} not supported for Job"),
        ("resource.k8s.io", "ResourceSlice") => format!("field label not supported for {kind:?}: {field}"),
        _ if has_no_fields && kind.is_built_in() => {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        _ => format!("field label not supported: {field}"),
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, FieldSelectorError> {
        let terms = split(text).into_iter().filter(|term| !term.is_empty());
        let terms = terms.map(|term| {
            let operator = term.find("!=").map(|at| (at, 2, false));
            let equals = term.find('=').map(|at| (at, if term[at..].starts_with("==") { 2 } else { 1 }, true));
            let (at, length, equal) = match (operator, equals) {
                (Some(not), Some(is)) if not.0 < is.0 => not,
                (_, Some(is)) => is,
                (_, None) => {
                    let (selector, term) = (text.to_owned(), term.to_owned());
                    return Err(FieldSelectorError::NoOperator { selector, term });
                }
            };
            let value =
                unescape(&term[at + length..]).ok_or_else(|| FieldSelectorError::Escape { term: term.to_owned() })?;
            Ok(Term { field: term[..at].trim().to_owned(), equal, value })
        });
        let mut terms: Vec<Term> = terms.collect::<Result<_, _>>()?;
        // Nothing compared with nothing says nothing.
        terms.retain(|term| !(term.field.is_empty() && term.value.is_empty()));
        Ok(Self { terms })
    }
}

/// Splits at commas that no backslash stands before.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?,
            // As in Kubernetes: a value that holds one of these escapes it.
            ',' | '=' => return None,
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::HeaderParts;
    use std::collections::BTreeMap;

    #[test]
    fn terms_are_compared_with_the_header() {
        let fields =
            BTreeMap::from([("status.phase".into(), "Running".to_owned()), ("spec.nodeName".into(), String::new())]);
        let header = HeaderParts { name: "a", namespace: "n", fields, ..HeaderParts::default() }.pack();
        for (selector, selected) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,metadata.namespace!=m", true),
            ("metadata.name=b", false),
            ("status.phase!=Running", false),
            ("spec.nodeName=", true),
            ("spec.nodeName!=", false),
        ] {
            assert_eq!(selector.parse::<FieldSelector>().unwrap().matches(header.get()), selected, "{selector}");
        }
        assert!("metadata.name".parse::<FieldSelector>().is_err());
        assert!("metadata.name=a=b".parse::<FieldSelector>().is_err());
        assert!("metadata.name!=x\\,metadata.name=s".parse::<FieldSelector>().is_err(), "as in Kubernetes");
        assert!("metadata.name=a\\x".parse::<FieldSelector>().is_err());
        assert_eq!("metadata.name=a\\,b".parse::<FieldSelector>().unwrap().name(), Some("a,b"));
    }
}
