//! Tables in aligned columns: the server's Table form, and grids of our own. Pure but for the final print.

use serde_json::Value;

use crate::printable::printable;

/// Rows of text in aligned columns, three blanks apart, as kubectl's.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// Adds a row of one line, of cells that are shown as [`printable`] text. Each ends at its first line break, as
    /// kubectl's: what others wrote makes no rows.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.uncut_row(cells.into_iter().map(|cell| first_line(cell.into())));
    }

    /// Adds a row whose cells keep their line breaks, as kubectl's custom columns do.
    pub fn uncut_row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let shown = |cell: S| {
            let text: String = cell.into();
            printable(&text).into_owned()
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// One line per row; the last cell of a row is not padded.
    pub fn render(&self) -> String {
        self.render_from(&mut Vec::new())
    }

    /// The same with columns no narrower than `widths`, which are widened: for a table that comes in pieces.
    pub fn render_from(&self, widths: &mut Vec<usize>) -> String {
        for row in &self.rows {
            for (i, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(i) {
                    Some(known) => *known = width.max(*known),
                    None => widths.push(width),
                }
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if i + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', widths[i] + 3 - cell.chars().count()));
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// What is shown of a server's Table.
#[derive(Clone, Debug, Default)]
pub struct TableStyle {
    /// All columns, not only those of priority 0.
    pub wide: bool,
    /// A first line with the columns' names.
    pub headers: bool,
    /// A first column with each row's namespace.
    pub namespace: bool,
    /// A last column with each row's labels.
    pub labels: bool,
    /// Columns with the values of these labels.
    pub label_columns: Vec<String>,
    /// Put before each name: `pod/`.
    pub prefix: String,
}

/// A server's Table, its columns as the first answer declared them: watch frames leave them out.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<(String, i64)>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    cells: Vec<String>,
    namespace: String,
    labels: Vec<(String, String)>,
}

impl Table {
    /// Adds the rows of `value`. A plain object or list (from a server without tables) becomes rows of name and
    /// creation time.
    pub fn add(&mut self, value: &Value) {
        if value["kind"] == "Table" {
            let columns = list(&value["columnDefinitions"]);
            if !columns.is_empty() {
                self.columns = columns
                    .iter()
                    .map(|c| {
                        (c["name"].as_str().unwrap_or_default().to_uppercase(), c["priority"].as_i64().unwrap_or(0))
                    })
                    .collect();
            }
            self.rows.extend(
                list(&value["rows"]).iter().map(|row| Row::new(&row["object"]["metadata"], list(&row["cells"]))),
            );
        } else {
            self.columns = vec![("NAME".into(), 0), ("CREATED AT".into(), 0)];
            let objects = value["items"].as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for object in objects {
                let metadata = &object["metadata"];
                let cells = [metadata["name"].clone(), metadata["creationTimestamp"].clone()];
                self.rows.push(Row::new(metadata, &cells));
            }
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets the rows and keeps the columns: for the next frame of a watch.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// The rows and, where `style` wants it, the header.
    pub fn grid(&self, style: &TableStyle) -> Grid {
        let shown: Vec<usize> = (0..self.columns.len()).filter(|i| style.wide || self.columns[*i].1 == 0).collect();
        let mut grid = Grid::default();
        if style.headers {
            let mut header = Vec::new();
            if style.namespace {
                header.push("NAMESPACE".to_owned());
            }
            header.extend(shown.iter().map(|i| self.columns[*i].0.clone()));
            header.extend(style.label_columns.iter().map(|l| l.rsplit('/').next().unwrap_or(l).to_uppercase()));
            if style.labels {
                header.push("LABELS".to_owned());
            }
            grid.row(header);
        }
        for row in &self.rows {
            grid.row(row.shown(&shown, style));
        }
        grid
    }
}

impl Row {
    fn new(metadata: &Value, cells: &[Value]) -> Self {
        let labels = metadata["labels"].as_object().into_iter().flatten();
        Self {
            cells: cells.iter().map(cell_text).collect(),
            namespace: metadata["namespace"].as_str().unwrap_or_default().to_owned(),
            labels: labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect(),
        }
    }

    fn shown(&self, columns: &[usize], style: &TableStyle) -> Vec<String> {
        let mut cells = Vec::new();
        if style.namespace {
            cells.push(self.namespace.clone());
        }
        for i in columns {
            let cell = self.cells.get(*i).cloned().unwrap_or_default();
            cells.push(if *i == 0 { format!("{}{cell}", style.prefix) } else { cell });
        }
        for wanted in &style.label_columns {
            cells.push(self.labels.iter().find(|(key, _)| key == wanted).map_or(String::new(), |(_, v)| v.clone()));
        }
        if style.labels {
            let mut labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            labels.sort();
            cells.push(if labels.is_empty() { "<none>".into() } else { labels.join(",") });
        }
        cells
    }
}

/// The text up to where kubectl and a terminal would begin another line, and dots for the rest.
fn first_line(mut text: String) -> String {
    if let Some(end) = text.find(['\n', '\r', '\u{c}']) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn cell_text(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Table {
        let mut table = Table::default();
        table.add(&json!({"kind": "Table",
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "Node",
                "priority": 1}],
            "rows": [
                {"cells": ["web-1", "1/1", "a"], "object": {"metadata": {"namespace": "default",
                    "labels": {"app": "web"}}}},
                {"cells": ["a-much-longer-name", "0/1", null],
                    "object": {"metadata": {"namespace": "kube-system"}}}]}));
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let text = pods().grid(&TableStyle { headers: true, ..Default::default() }).render();
        assert_eq!(text, "NAME                 READY\nweb-1                1/1\na-much-longer-name   0/1\n");
    }

    #[test]
    fn what_a_pod_says_of_itself_does_not_reach_the_terminal() {
        let mut grid = Grid::default();
        grid.row(["a\u{1b}[2J", "b"]);
        assert_eq!(grid.render(), "a^[[2J   b\n");
    }

    #[test]
    fn a_line_break_in_a_cell_begins_no_row() {
        let mut grid = Grid::default();
        grid.row(["web\nroot   Ready", "a\rb", "c\u{c}d", "plain"]);
        assert_eq!(grid.render(), "web...   a...   c...   plain\n");
        let mut events = Table::default();
        events.add(&json!({"kind": "Table", "columnDefinitions": [{"name": "Message", "priority": 0}],
            "rows": [{"cells": ["failed\n5s   Normal   Started"], "object": {}}]}));
        assert_eq!(events.grid(&TableStyle::default()).render(), "failed...\n");
        let mut columns = Grid::default();
        columns.uncut_row(["a\nb\u{1b}"]);
        assert_eq!(columns.render(), "a\nb^[\n");
    }

    #[test]
    fn wide_shows_all_columns_and_all_namespaces_a_first_one() {
        let style =
            TableStyle { headers: true, wide: true, namespace: true, prefix: "pod/".into(), ..Default::default() };
        let text = pods().grid(&style).render();
        assert_eq!(
            text,
            "NAMESPACE     NAME                     READY   NODE\n\
             default       pod/web-1                1/1     a\n\
             kube-system   pod/a-much-longer-name   0/1     <none>\n"
        );
    }

    #[test]
    fn pieces_of_a_table_keep_their_columns() {
        let mut widths = Vec::new();
        let text = pods().grid(&TableStyle::default()).render_from(&mut widths);
        let mut piece = Grid::default();
        piece.row(["b", "1/1"]);
        assert_eq!(piece.render_from(&mut widths).find("1/1"), text.find("1/1").map(|i| i.max(widths[0] + 3)));
    }

    #[test]
    fn a_watch_frame_without_columns_keeps_the_known_ones() {
        let mut table = pods();
        table.clear();
        table.add(&json!({"kind": "Table", "columnDefinitions": [], "rows": [{"cells": ["web-1", "0/1", "a"],
            "object": {}}]}));
        assert_eq!(table.grid(&TableStyle { labels: true, ..Default::default() }).render(), "web-1   0/1   <none>\n");
    }
}
