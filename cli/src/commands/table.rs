//! Tables as kubectl prints them.

use serde_json::Value;

use super::output::{Paint, clean};

/// A table under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; what is missing is shown as `-`, what is too much is left out.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| clean(&cell));
        let mut row: Vec<String> = cells.take(self.columns.len()).collect();
        row.resize(self.columns.len(), String::new());
        for cell in row.iter_mut().filter(|cell| cell.is_empty()) {
            "-".clone_into(cell);
        }
        self.rows.push(row);
    }

    /// The text; cells that are the word of a state have its colour.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(self.columns[column].len())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let last = widths.len().saturating_sub(1);
        let line = |cells: &mut dyn Iterator<Item = (&str, String)>| {
            let mut text = String::new();
            for (column, (plain, painted)) in cells.enumerate() {
                text.push_str(&painted);
                if column < last {
                    let gap = widths[column] - plain.chars().count() + GAP;
                    text.push_str(&" ".repeat(gap));
                }
            }
            text.push('\n');
            text
        };
        let mut text = line(&mut self.columns.iter().map(|name| (*name, paint.head(name))));
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(|cell| (cell.as_str(), paint.word(cell)))));
        }
        text
    }
}

/// A JSON value as a cell: text without quotes, lists with commas, nothing for null.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name}={}", cell(value));
            fields.iter().map(field).collect::<Vec<_>>().join(",")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Spaces between columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_are_shown() {
        let mut table = Table::new(&["CLUSTER", "STATE"]);
        table.row(["gcp-europe-west".to_owned(), "up".to_owned()]);
        table.row([String::new()]);
        let want = "CLUSTER          STATE\ngcp-europe-west  up\n-                -\n";
        assert_eq!(table.render(Paint { on: false }), want);
        let painted = table.render(Paint { on: true });
        assert!(painted.contains("\u{1b}[32mup\u{1b}[0m"), "{painted:?}");
    }

    #[test]
    fn text_of_a_peer_cannot_drive_the_terminal() {
        let mut table = Table::new(&["ERROR"]);
        table.row(["a\u{1b}[2J\nb\u{202e}c".to_owned()]);
        assert_eq!(table.render(Paint { on: false }), "ERROR\na\u{fffd}[2J\u{fffd}b\u{fffd}c\n");
    }

    #[test]
    fn values_are_shown_without_the_marks_of_json() {
        assert_eq!(cell(&json!(null)), "");
        assert_eq!(cell(&json!(["a", 1, true])), "a,1,true");
        assert_eq!(cell(&json!({"timeout": 2, "won": 1})), "timeout=2,won=1");
    }
}
