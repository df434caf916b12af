//! Reads a JSONPath template by descent, one character ahead. Pure.

use std::{iter::Peekable, str::Chars};

use serde_json::Value;

use super::{Comparison, Part, Step};

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
    pub fn parts(&mut self, in_range: bool) -> Result<Vec<Part>, String> {
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
                "end" => return Err("{end} without {range}".into()),
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
            return Err("{range} without {end}".into());
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(parts)
    }

    fn steps(&mut self) -> Result<Vec<Step>, String> {
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
                        (true, true) => return Err("`..` needs a field name".into()),
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

    fn bracket(&mut self) -> Result<Step, String> {
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
                    Step::Index(from.ok_or("expected a number, '*', a quoted name or a filter behind '['")?)
                }
            }
        };
        self.blanks();
        self.chars.next_if_eq(&']').map(|_| step).ok_or_else(|| "missing ']'".into())
    }

    /// Behind `[?`: `(@.path == value)`, or only the path.
    fn filter(&mut self) -> Result<Step, String> {
        self.chars.next_if_eq(&'(').ok_or("a filter is written [?(…)]")?;
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
            other => return Err(format!("unknown operator {other} in a filter")),
        };
        self.blanks();
        let test = match comparison {
            None => None,
            Some(comparison) => Some((comparison, self.literal()?)),
        };
        self.blanks();
        let closed = self.chars.next_if_eq(&')').and_then(|_| self.chars.next_if_eq(&']'));
        closed.map(|_| Step::Filter { path, test }).ok_or_else(|| "a filter ends with )]".into())
    }

    fn literal(&mut self) -> Result<Value, String> {
        if matches!(self.chars.peek(), Some('"' | '\'')) {
            return self.quoted().map(Value::String);
        }
        let mut text = String::new();
        while let Some(c) = self.chars.next_if(|c| !c.is_whitespace() && *c != ')') {
            text.push(c);
        }
        serde_json::from_str(&text).map_err(|_| format!("{text} is neither a number nor a quoted text"))
    }

    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.chars.next().filter(|c| matches!(c, '"' | '\'')).ok_or("expected a quoted text")?;
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
        Err("a quoted text is not closed".into())
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

    fn close(&mut self) -> Result<(), String> {
        self.blanks();
        self.chars.next_if_eq(&'}').map(|_| ()).ok_or_else(|| "missing '}', or something unknown before it".into())
    }
}
