//! Reads a JSONPath template by descent, one character ahead. Pure.

use std::{iter::Peekable, str::Chars};

use serde_json::Value;

use super::{Comparison, Part, Step};

/// Where a template is no JSONPath. The texts say what would be right; the caller names the template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{{end}} without {{range}}")]
    EndWithoutRange,
    #[error("{{range}} without {{end}}")]
    RangeWithoutEnd,
    #[error("`..` needs a field name")]
    NoField,
    #[error("expected a number, '*', a quoted name or a filter behind '['")]
    NoSubscript,
    #[error("missing ']'")]
    OpenBracket,
    #[error("missing '}}', or something unknown before it")]
    OpenBrace,
    #[error("a filter is written [?(…)]")]
    NoFilter,
    #[error("a filter ends with )]")]
    OpenFilter,
    #[error("unknown operator {0} in a filter")]
    UnknownOperator(String),
    #[error("{0} is neither a number nor a quoted text")]
    NoLiteral(String),
    #[error("expected a quoted text")]
    NoQuote,
    #[error("a quoted text is not closed")]
    OpenQuote,
}

/// What is left of a template.
pub struct Parser<'t> {
    chars: Peekable<Chars<'t>>,
}

impl<'t> Parser<'t> {
    /// A parser at the beginning of `text`.
    pub fn new(text: &'t str) -> Self {
        Self { chars: text.chars().peekable() }
    }

    /// Parts up to the end, or up to `{end}` within a range.
    pub fn parts(&mut self, in_range: bool) -> Result<Vec<Part>, TemplateError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            if c != '{' {
                text.push(c);
                continue;
            }
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            self.blanks();
            if matches!(self.chars.peek(), Some('"' | '\'')) {
                let literal = self.quoted()?;
                self.close()?;
                parts.push(Part::Text(literal));
                continue;
            }
            match self.word().as_str() {
                "range" => {
                    self.blanks();
                    let steps = self.steps()?;
                    self.close()?;
                    parts.push(Part::Range(steps, self.parts(true)?));
                }
                "end" if in_range => {
                    self.close()?;
                    return Ok(parts);
                }
                "end" => return Err(TemplateError::EndWithoutRange),
                "" => {
                    let steps = self.steps()?;
                    self.close()?;
                    parts.push(Part::Path(steps));
                }
                field => {
                    let mut steps = vec![Step::Field(field.to_owned())];
                    steps.extend(self.steps()?);
                    self.close()?;
                    parts.push(Part::Path(steps));
                }
            }
        }
        if in_range {
            return Err(TemplateError::RangeWithoutEnd);
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(parts)
    }

    fn steps(&mut self) -> Result<Vec<Step>, TemplateError> {
        let mut steps = Vec::new();
        loop {
            match self.chars.peek() {
                Some('$' | '@') => {
                    self.chars.next();
                }
                Some('.') => {
                    self.chars.next();
                    let deep = self.chars.next_if_eq(&'.').is_some();
                    if self.chars.next_if_eq(&'*').is_some() {
                        steps.push(Step::All);
                        continue;
                    }
                    let name = self.word();
                    match (deep, name.is_empty()) {
                        (true, false) => steps.push(Step::Anywhere(name)),
                        (false, false) => steps.push(Step::Field(name)),
                        (true, true) => return Err(TemplateError::NoField),
                        (false, true) => {}
                    }
                }
                Some('[') => {
                    self.chars.next();
                    steps.push(self.bracket()?);
                }
                _ => return Ok(steps),
            }
        }
    }

    fn bracket(&mut self) -> Result<Step, TemplateError> {
        self.blanks();
        let step = match self.chars.peek() {
            Some('*') => {
                self.chars.next();
                Step::All
            }
            Some('?') => {
                self.chars.next();
                return self.filter();
            }
            Some('"' | '\'') => {
                let mut names = vec![self.quoted()?];
                self.blanks();
                while self.chars.next_if_eq(&',').is_some() {
                    self.blanks();
                    names.push(self.quoted()?);
                    self.blanks();
                }
                if names.len() == 1 { Step::Field(names.remove(0)) } else { Step::Union(names) }
            }
            _ => {
                let from = self.number();
                if self.chars.next_if_eq(&':').is_some() {
                    Step::Slice(from.unwrap_or(0), self.number())
                } else {
                    Step::Index(from.ok_or(TemplateError::NoSubscript)?)
                }
            }
        };
        self.blanks();
        self.chars.next_if_eq(&']').map(|_| step).ok_or(TemplateError::OpenBracket)
    }

    /// Behind `[?`: `(@.path == value)`, or only the path.
    fn filter(&mut self) -> Result<Step, TemplateError> {
        self.chars.next_if_eq(&'(').ok_or(TemplateError::NoFilter)?;
        self.blanks();
        let path = self.steps()?;
        self.blanks();
        let mut operator = String::new();
        while let Some(c) = self.chars.next_if(|c| "=!<>".contains(*c)) {
            operator.push(c);
        }
        let comparison = match operator.as_str() {
            "" => None,
            "==" => Some(Comparison::Equal),
            "!=" => Some(Comparison::NotEqual),
            "<" => Some(Comparison::Less),
            "<=" => Some(Comparison::LessOrEqual),
            ">" => Some(Comparison::Greater),
            ">=" => Some(Comparison::GreaterOrEqual),
            other => return Err(TemplateError::UnknownOperator(other.to_owned())),
        };
        self.blanks();
        let test = match comparison {
            None => None,
            Some(comparison) => Some((comparison, self.literal()?)),
        };
        self.blanks();
        let closed = self.chars.next_if_eq(&')').and_then(|_| self.chars.next_if_eq(&']'));
        closed.map(|_| Step::Filter { path, test }).ok_or(TemplateError::OpenFilter)
    }

    fn literal(&mut self) -> Result<Value, TemplateError> {
        if matches!(self.chars.peek(), Some('"' | '\'')) {
            return self.quoted().map(Value::String);
        }
        let mut text = String::new();
        while let Some(c) = self.chars.next_if(|c| !c.is_whitespace() && *c != ')') {
            text.push(c);
        }
        serde_json::from_str(&text).map_err(|_| TemplateError::NoLiteral(text))
    }

    fn quoted(&mut self) -> Result<String, TemplateError> {
        let quote = self.chars.next().filter(|c| matches!(c, '"' | '\'')).ok_or(TemplateError::NoQuote)?;
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                '\\' => match self.chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(other) => text.push(other),
                    None => break,
                },
                c if c == quote => return Ok(text),
                c => text.push(c),
            }
        }
        Err(TemplateError::OpenQuote)
    }

    /// A field's name; a backslash takes the next character as it is (`nodes\.k8s\.io`).
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.chars.next_if(|c| !".[]{}()$@*,:?\"'=!<>".contains(*c) && !c.is_whitespace()) {
            match c {
                '\\' => word.extend(self.chars.next()),
                c => word.push(c),
            }
        }
        word
    }

    fn number(&mut self) -> Option<i64> {
        let mut text = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_digit() || *c == '-') {
            text.push(c);
        }
        text.parse().ok()
    }

    fn blanks(&mut self) {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        self.blanks();
        self.chars.next_if_eq(&'}').map(|_| ()).ok_or(TemplateError::OpenBrace)
    }
}
