//! What a bench found: a table for people, JSON for programs, an SVG plot for both.

use std::{fmt::Write, path::Path};

use serde_json::{Value, json};

use crate::kit::Result;

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
        std::fs::write(dir.join(format!("{}.svg", self.name)), self.svg())?;
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

    /// A plot with a logarithmic x axis where x spans more than two decades, and y from zero.
    fn svg(&self) -> String {
        const WIDTH: f64 = 720.0;
        const HEIGHT: f64 = 420.0;
        const LEFT: f64 = 80.0;
        const BOTTOM: f64 = 60.0;
        const TOP: f64 = 40.0;
        const RIGHT: f64 = 20.0;
        let xs = self.xs();
        let (first, last) = (xs.first().copied().unwrap_or(0.0), xs.last().copied().unwrap_or(1.0));
        let logarithmic = first > 0.0 && last / first > 100.0;
        let scale = |x: f64| if logarithmic { x.log10() } else { x };
        let span = (scale(last) - scale(first)).max(f64::MIN_POSITIVE);
        let top = self.columns.iter().flat_map(|c| c.points.iter().map(|p| p.1)).fold(0.0, f64::max) * 1.1;
        let px =
            |x: f64| LEFT + (WIDTH - LEFT - RIGHT) * if xs.len() > 1 { (scale(x) - scale(first)) / span } else { 0.5 };
        let py = |y: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * if top > 0.0 { y / top } else { 0.0 };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/><text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{} \
             ({})</text>",
            escape(&self.title),
            escape(&self.y)
        );
        for step in 0..=4 {
            let y = top * f64::from(step) / 4.0;
            write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{1}\" y2=\"{1}\" stroke=\"#ddd\"/><text x=\"{2}\" \
                y=\"{3}\" text-anchor=\"end\">{4}</text>",
                WIDTH - RIGHT,
                py(y),
                LEFT - 6.0,
                py(y) + 4.0,
                number(y)
            )
            .expect("writing to a String");
        }
        for x in &xs {
            write!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                px(*x),
                HEIGHT - BOTTOM + 18.0,
                number(*x)
            )
            .expect("writing to a String");
        }
        write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(&self.x)
        )
        .expect("writing to a String");
        for (index, column) in self.columns.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            let points: Vec<String> =
                column.points.iter().map(|(x, y)| format!("{:.1},{:.1}", px(*x), py(*y))).collect();
            write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" points=\"{}\"/>",
                points.join(" ")
            )
            .expect("writing to a String");
            for (x, y) in &column.points {
                write!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"/>", px(*x), py(*y))
                    .expect("writing to a String");
            }
            write!(
                svg,
                "<text x=\"{}\" y=\"{}\" fill=\"{color}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                TOP + 4.0 + 16.0 * index as f64,
                escape(&column.name)
            )
            .expect("writing to a String");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

const COLORS: [&str; 6] = ["#1b6ca8", "#d1495b", "#3a7d44", "#edae49", "#6a4c93", "#555555"];

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Three significant digits, or a whole number.
fn number(value: f64) -> String {
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
