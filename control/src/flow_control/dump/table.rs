//! A table of a page, aligned for a reader, and of a size that follows from its rows alone: a client names what it
//! likes, as long as it likes.

/// The longest text of a cell, characters.
const LONGEST_CELL: usize = 128;
/// The widest that a column is padded to. Kubernetes pads to the longest cell, whatever its length.
const WIDEST_COLUMN: usize = 64;
/// The narrowest, as of Go's `tabwriter` there.
const NARROWEST_COLUMN: usize = 8;

/// A table as Go's `tabwriter` aligns it: a comma behind each cell but the last.
pub struct DumpTable {
    rows: Vec<Vec<String>>,
}

impl DumpTable {
    /// With these columns.
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|column| (*column).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| shown(cell)).collect());
    }

    /// All of it.
    pub fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let widest = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            widest.unwrap_or_default().saturating_add(2).clamp(NARROWEST_COLUMN, WIDEST_COLUMN)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                text.push_str(cell);
                let Some(width) = widths.get(column).filter(|_| column.saturating_add(1) < columns) else { continue };
                text.push(',');
                // At least a space, where the cell is wider than its column.
                let padding = width.saturating_sub(cell.chars().count().saturating_add(1)).max(1);
                text.extend(std::iter::repeat_n(' ', padding));
            }
            text.push('\n');
        }
        text
    }
}

/// The beginning of a text. A name may hold anything: it stays on its line.
fn shown(text: &str) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = characters.by_ref().take(LONGEST_CELL).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_a_name_stays_on_its_line() {
        let mut table = DumpTable::new(&["Name", "PriorityLevelName", "Last"]);
        table.row(["a\nb", "c", "d"].map(str::to_owned).to_vec());
        assert_eq!(table.text(), "Name,   PriorityLevelName, Last\na b,    c,                 d\n");
    }

    #[test]
    fn one_long_text_widens_no_row_but_its_own() {
        let mut table = DumpTable::new(&["Path", "Last"]);
        table.row(vec!["x".repeat(60_000), "y".repeat(60_000)]);
        for number in 0..6000 {
            table.row(vec![number.to_string(), String::new()]);
        }
        let text = table.text();
        assert!(text.len() < 6002 * 67 + 300, "{}", text.len());
        let longest = text.lines().nth(1).map(|line| line.chars().filter(|c| *c == '…').count());
        assert_eq!(longest, Some(2), "it says that there is more");
        assert!(text.lines().skip(2).all(|line| line.len() == 64), "aligned");
    }
}
