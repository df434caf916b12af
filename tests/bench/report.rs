//! What a bench found: a table for people, JSON for programs, an SVG plot for both.

use std::{fmt::Write, path::Path};

use serde_json::{Value, json};

use crate::{kit::Result, plot};

/// One bench's figures: a line of x values, and one column of y values a contestant.
pub struct Report {
    /// File name of the results.
    pub name: &'static str,
    pub title: String,
    pub x: String,
    pub y: String,
    pub columns: Vec<Column>,
    /// What a reader must know to judge the figures; what was left out and why.
    pub notes: Vec<String>,
}

pub struct Column {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Report {
    pub fn new(name: &'static str, title: impl Into<String>, x: impl Into<String>, y: impl Into<String>) -> Self {
        Self { name, title: title.into(), x: x.into(), y: y.into(), columns: Vec::new(), notes: Vec::new() }
    }

    /// Adds one measurement of `column` at `x`.
    pub fn add(&mut self, column: &str, x: f64, y: f64) {
        match self.columns.iter_mut().find(|c| c.name == column) {
            Some(found) => found.points.push((x, y)),
            None => self.columns.push(Column { name: column.to_owned(), points: vec![(x, y)] }),
        }
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints the table and writes `NAME.json` and `NAME.svg` into `dir`.
    pub fn publish(&self, dir: &Path) -> Result {
        print!("{}", self.table());
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join(format!("{}.json", self.name)), serde_json::to_string_pretty(&self.json())?)?;
        std::fs::write(dir.join(format!("{}.svg", self.name)), plot::svg(self)?)?;
        Ok(())
    }

    fn xs(&self) -> Vec<f64> {
        let mut xs: Vec<f64> = self.columns.iter().flat_map(|c| c.points.iter().map(|p| p.0)).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        xs
    }

    fn table(&self) -> String {
        let mut rows = vec![
            std::iter::once(self.x.clone()).chain(self.columns.iter().map(|c| c.name.clone())).collect::<Vec<_>>(),
        ];
        for x in self.xs() {
            let cell = |column: &Column| {
                let found = column.points.iter().find(|p| p.0 == x);
                found.map_or_else(|| "-".to_owned(), |p| number(p.1))
            };
            rows.push(std::iter::once(number(x)).chain(self.columns.iter().map(cell)).collect());
        }
        let widths: Vec<usize> =
            (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0)).collect();
        let mut text = format!("\n{} ({})\n", self.title, self.y);
        for row in rows {
            for (cell, width) in row.iter().zip(&widths) {
                write!(text, "{cell:>width$}   ").expect("writing to a String");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for note in &self.notes {
            writeln!(text, "  {note}").expect("writing to a String");
        }
        text
    }

    fn json(&self) -> Value {
        let columns: Vec<Value> = self.columns.iter().map(|c| json!({"name": c.name, "points": c.points})).collect();
        json!({"name": self.name, "title": self.title, "x": self.x, "y": self.y, "columns": columns,
            "notes": self.notes})
    }
}

/// Three significant digits, or a whole number.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == v.trunc() => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The value below which `share` (0 to 1) of `values` lie.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
