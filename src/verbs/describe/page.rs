//! The layout of a description: titles and values in two columns, nested by indentation, with tables between. Pure.

use serde_json::Value;

use crate::output::Grid;

/// A description as it grows.
#[derive(Default)]
pub struct Page {
    lines: Vec<Line>,
    indent: usize,
}

enum Line {
    Field { indent: usize, title: String, value: String },
    Text(String),
}

impl Page {
    /// `Title:   value`; further lines of the value go below the first.
    pub fn field(&mut self, title: &str, value: impl Into<String>) {
        let value: String = value.into();
        let mut lines = value.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        self.lines.push(Line::Field { indent: self.indent, title: format!("{title}:"), value: first });
        for line in lines {
            self.lines.push(Line::Field { indent: self.indent, title: String::new(), value: line.to_owned() });
        }
    }

    /// A field that is left out where the value is absent.
    pub fn optional(&mut self, title: &str, value: &Value) {
        if !value.is_null() {
            self.field(title, word(value));
        }
    }

    /// `Title:` with what `inside` writes indented below it.
    pub fn section(&mut self, title: &str, inside: impl FnOnce(&mut Self)) {
        self.lines.push(Line::Text(format!("{}{title}:", " ".repeat(self.indent))));
        self.indent += 2;
        inside(self);
        self.indent -= 2;
    }

    /// A line of its own.
    pub fn line(&mut self, text: &str) {
        self.lines.push(Line::Text(format!("{}{text}", " ".repeat(self.indent))));
    }

    /// A table; its heading is underlined as kubectl's.
    pub fn table<const N: usize>(&mut self, heading: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
        let mut grid = Grid::default();
        grid.row(heading);
        grid.row(heading.map(|word| "-".repeat(word.chars().count())));
        for row in rows {
            // A page tells the whole of a message, and on one line.
            grid.row(row.map(|cell| cell.replace('\n', "\\n").replace('\r', "\\r")));
        }
        for line in grid.render().lines() {
            self.line(line);
        }
    }

    /// Values of neighbouring fields stand in one column.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut rest = &self.lines[..];
        while let Some(line) = rest.first() {
            if let Line::Text(text) = line {
                out.push_str(text.trim_end());
                out.push('\n');
                rest = &rest[1..];
                continue;
            }
            let block = rest.iter().take_while(|line| matches!(line, Line::Field { .. })).count();
            let width = |line: &Line| match line {
                Line::Field { indent, title, .. } => indent + title.chars().count(),
                Line::Text(_) => 0,
            };
            let column = rest[..block].iter().map(width).max().unwrap_or_default() + 2;
            for line in &rest[..block] {
                if let Line::Field { indent, title, value } = line {
                    let head = format!("{}{title}", " ".repeat(*indent));
                    out.push_str(format!("{head:column$}{value}").trim_end());
                    out.push('\n');
                }
            }
            rest = &rest[block..];
        }
        out
    }
}

/// A value as text, without quotes.
pub fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    }
}

/// The elements of a list; none where it is absent.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `key=value` a line, in order; `<none>` for an empty map.
pub fn map(value: &Value, between: &str) -> String {
    let mut pairs: Vec<String> =
        value.as_object().into_iter().flatten().map(|(key, value)| format!("{key}{between}{}", word(value))).collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".into() } else { pairs.join("\n") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_of_several_lines_is_one_row() {
        let mut page = Page::default();
        page.table(["Reason", "Message"], [["Failed".into(), "first\nNormal   forged".into()]]);
        let rendered = page.render();
        assert!(rendered.ends_with("Failed   first\\nNormal   forged\n"), "{rendered}");
        assert_eq!(rendered.lines().count(), 3);
    }

    #[test]
    fn values_stand_in_one_column_and_sections_are_indented() {
        let mut page = Page::default();
        page.field("Name", "web");
        page.field("Labels", map(&json!({"b": "2", "a": "1"}), "="));
        page.section("Containers", |page| page.section("web", |page| page.field("Image", "x")));
        assert_eq!(page.render(), "Name:    web\nLabels:  a=1\n         b=2\nContainers:\n  web:\n    Image:  x\n");
    }
}
