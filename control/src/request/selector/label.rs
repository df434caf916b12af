//! Label selectors as text: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`. Kubernetes' grammar (`labels.Parse`).

use std::{collections::BTreeSet, str::FromStr};

use crate::store::Header;

/// All requirements hold, or the object is not selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelRequirement {
    /// The label has one of the values; `=` and `==` name one.
    In {
        /// The label's key.
        key: String,
        /// Never empty.
        values: BTreeSet<String>,
    },
    /// Also holds where the label is not there.
    NotIn {
        /// The label's key.
        key: String,
        /// Never empty.
        values: BTreeSet<String>,
    },
    /// The label is there, with any value.
    Exists {
        /// The label's key.
        key: String,
    },
    /// The label is not there.
    Absent {
        /// The label's key.
        key: String,
    },
    /// The value is a whole number above this one.
    GreaterThan {
        /// The label's key.
        key: String,
        /// Not itself selected.
        value: i64,
    },
    /// The value is a whole number below this one.
    LessThan {
        /// The label's key.
        key: String,
        /// Not itself selected.
        value: i64,
    },
}

impl LabelSelector {
    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// All that must hold.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Whether the labels of a stored object satisfy it.
    pub fn matches(&self, header: Header<'_>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(header))
    }
}

impl LabelRequirement {
    fn matches(&self, header: Header<'_>) -> bool {
        let label = |key: &str| header.label(key);
        match self {
            Self::In { key, values } => label(key).is_some_and(|value| values.contains(value)),
            Self::NotIn { key, values } => label(key).is_none_or(|value| !values.contains(value)),
            Self::Exists { key } => label(key).is_some(),
            Self::Absent { key } => label(key).is_none(),
            Self::GreaterThan { key, value } => {
                label(key).and_then(|text| text.parse::<i64>().ok()).is_some_and(|n| n > *value)
            }
            Self::LessThan { key, value } => {
                label(key).and_then(|text| text.parse::<i64>().ok()).is_some_and(|n| n < *value)
            }
        }
    }
}

/// Why a text is no label selector. The texts are those of Kubernetes' parser.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    /// Something else should stand there.
    #[error("{}found '{found}', expected: {expected}", if *.between { "" } else { "unable to parse requirement: " })]
    Expected {
        /// Whether it stands where a requirement has ended.
        between: bool,
        /// The word or sign that stands there; empty at the end.
        found: String,
        /// What may stand there, for people.
        expected: &'static str,
    },
    /// `in` and `notin` are followed by a list.
    #[error("unable to parse requirement: found '{found}' expected: '('")]
    NoList {
        /// What stands there.
        found: String,
    },
    /// `>` and `<` compare whole numbers only.
    #[error("unable to parse requirement: for '{operator}' operator, the value must be an integer: {value:?}")]
    NotAnInteger {
        /// `>` or `<`.
        operator: &'static str,
        /// What stands behind it.
        value: String,
    },
    /// No label can have this key.
    #[error("unable to parse requirement: <nil>: Invalid value: {key:?}: {why}")]
    Key {
        /// The key.
        key: String,
        /// The rule that it breaks.
        why: String,
    },
    /// No label can have this value.
    #[error("unable to parse requirement: values[0][key]: Invalid value: {value:?}: {why}")]
    Value {
        /// The value.
        value: String,
        /// The rule that it breaks.
        why: String,
    },
}

fn expected(found: Option<&str>, expected: &'static str) -> LabelSelectorError {
    LabelSelectorError::Expected { between: false, found: found.unwrap_or_default().to_owned(), expected }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, LabelSelectorError> {
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        if tokens.peek().is_none() {
            return Ok(Self::default());
        }
        let between = |found: Option<&str>, expected: &'static str| {
            Err(LabelSelectorError::Expected { between: true, found: found.unwrap_or_default().to_owned(), expected })
        };
        let begins = |token: Option<&str>| token.is_some_and(|token| token == "!" || is_word(token));
        if !begins(tokens.peek()) {
            return between(tokens.peek(), "!, identifier, or 'end of string'");
        }
        loop {
            requirements.push(requirement(&mut tokens)?);
            match tokens.next() {
                None => return Ok(Self { requirements }),
                Some(",") if begins(tokens.peek()) => {}
                Some(",") => return between(tokens.peek(), "identifier after ','"),
                other => return between(other, "',' or 'end of string'"),
            }
        }
    }
}

fn requirement(tokens: &mut Tokens) -> Result<LabelRequirement, LabelSelectorError> {
    let first = tokens.next();
    if first == Some("!") {
        let key = tokens.next().filter(|t| is_word(t)).ok_or_else(|| expected(None, "identifier"))?;
        return Ok(LabelRequirement::Absent { key: valid_key(key)? });
    }
    let key =
        valid_key(first.filter(|t| is_word(t)).ok_or_else(|| expected(first, "!, identifier, or 'end of string'"))?)?;
    let number = |tokens: &mut Tokens, operator: &'static str| {
        let text = tokens.next().unwrap_or_default();
        text.parse::<i64>().map_err(|_| LabelSelectorError::NotAnInteger { operator, value: text.to_owned() })
    };
    match tokens.peek() {
        None | Some(",") => return Ok(LabelRequirement::Exists { key }),
        _ => {}
    }
    match tokens.next() {
        Some("=" | "==") => Ok(LabelRequirement::In { key, values: BTreeSet::from([value(tokens)?]) }),
        Some("!=") => Ok(LabelRequirement::NotIn { key, values: BTreeSet::from([value(tokens)?]) }),
        Some("in") => Ok(LabelRequirement::In { key, values: set(tokens)? }),
        Some("notin") => Ok(LabelRequirement::NotIn { key, values: set(tokens)? }),
        Some(">") => Ok(LabelRequirement::GreaterThan { key, value: number(tokens, ">")? }),
        Some("<") => Ok(LabelRequirement::LessThan { key, value: number(tokens, "<")? }),
        other => Err(expected(other, "in, notin, =, ==, !=, gt, lt")),
    }
}

/// One value, which may be empty.
fn value(tokens: &mut Tokens) -> Result<String, LabelSelectorError> {
    match tokens.peek() {
        None | Some("," | ")") => Ok(String::new()),
        Some(word) if is_word(word) => {
            tokens.next();
            valid_value(word)
        }
        other => Err(expected(other, "identifier")),
    }
}

fn set(tokens: &mut Tokens) -> Result<BTreeSet<String>, LabelSelectorError> {
    match tokens.next() {
        Some("(") => {}
        other => return Err(LabelSelectorError::NoList { found: other.unwrap_or_default().to_owned() }),
    }
    let mut values = BTreeSet::new();
    loop {
        values.insert(value(tokens)?);
        match tokens.next() {
            Some(",") => {}
            Some(")") => return Ok(values),
            other => return Err(expected(other, "',' or ')'")),
        }
    }
}

fn valid_key(key: &str) -> Result<String, LabelSelectorError> {
    match crate::kinds::names::qualified_name(key).into_iter().next() {
        None => Ok(key.to_owned()),
        Some(why) => Err(LabelSelectorError::Key { key: key.to_owned(), why }),
    }
}

fn valid_value(value: &str) -> Result<String, LabelSelectorError> {
    match crate::kinds::names::label_value(value).into_iter().next() {
        None => Ok(value.to_owned()),
        Some(why) => Err(LabelSelectorError::Value { value: value.to_owned(), why }),
    }
}

fn is_word(token: &str) -> bool {
    !token.starts_with(['(', ')', ',', '=', '!', '<', '>'])
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> Option<&'a str> {
        Self { rest: self.rest }.next()
    }

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        let length = if ["==", "!="].iter().any(|operator| text.starts_with(operator)) {
            2
        } else if text.starts_with(['(', ')', ',', '=', '!', '<', '>']) {
            1
        } else {
            text.find(|c: char| c.is_whitespace() || "(),=!<>".contains(c)).unwrap_or(text.len())
        };
        let (token, rest) = text.split_at(length);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{HeaderParts, PackedHeader};

    fn header(labels: &[(&str, &str)]) -> PackedHeader {
        HeaderParts { labels: labels.to_vec(), ..HeaderParts::default() }.pack()
    }

    #[test]
    fn many_values_cost_an_object_little() {
        let values: Vec<String> = (0..200_000).map(|n| n.to_string()).collect();
        let parsed: LabelSelector = format!("app in ({})", values.join(",")).parse().unwrap();
        let web = header(&[("app", "web")]);
        let began = std::time::Instant::now();
        assert!((0..20_000).all(|_| !parsed.matches(web.get())));
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    #[test]
    fn every_operator_selects_as_in_kubernetes() {
        let web = header(&[("app", "web"), ("tier", "front"), ("rank", "7"), ("empty", "")]);
        for (selector, selected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=db", false),
            ("app!=db", true),
            ("app!=web", false),
            ("absent!=x", true),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db,cache)", true),
            ("app notin (web)", false),
            ("absent notin (web)", true),
            ("app", true),
            ("absent", false),
            ("!absent", true),
            ("!app", false),
            ("rank>6", true),
            ("rank<7", false),
            ("empty=", true),
            ("app=", false),
            ("app in (web),!absent,tier notin (back)", true),
        ] {
            let parsed: LabelSelector = selector.parse().unwrap();
            assert_eq!(parsed.matches(web.get()), selected, "{selector}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for selector in ["=a", "a b", "a in b", "a in (b", "a,,b", "a=b,", "a=b=c", "a in ()x", "-a=b", "a=b c", "a>b"]
        {
            assert!(selector.parse::<LabelSelector>().is_err(), "{selector}");
        }
        let told = |selector: &str| selector.parse::<LabelSelector>().unwrap_err().to_string();
        assert_eq!(told("a b"), "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
        assert_eq!(told("a>b"), "unable to parse requirement: for '>' operator, the value must be an integer: \"b\"");
    }
}
