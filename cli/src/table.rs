//! Aligned tables: rows under headings, or names beside values.

use crate::output::{Output, one_line};
use owo_colors::Style;
use std::fmt::Display;
use unicode_width::UnicodeWidthStr;

/// The widest a cell that may be cut is on a terminal.
const MAX_CUT_WIDTH: usize = 60;
/// What stands between two columns.
const GAP: &str = "  ";

/// A cell: text and how it looks.
pub(crate) struct Cell {
    text: String,
    style: Style,
    is_number: bool,
    may_be_cut: bool,
}

impl Cell {
    /// Text, whole.
    pub(crate) fn text(text: impl Display) -> Self {
        Self { text: text.to_string(), style: Style::new(), is_number: false, may_be_cut: false }
    }

    /// A number, which stands to the right of its column.
    pub(crate) fn number(number: impl Display) -> Self {
        Self { is_number: true, ..Self::text(number) }
    }

    /// Text that may be long: on a terminal only its beginning is shown.
    pub(crate) fn cut(text: impl Display) -> Self {
        Self { may_be_cut: true, ..Self::text(text) }
    }

    /// Text that may be absent.
    pub(crate) fn maybe(text: Option<impl Display>) -> Self {
        text.map_or_else(|| Self::text("-").styled(Style::new().dimmed()), Self::text)
    }

    /// A number that may be absent.
    pub(crate) fn maybe_number(number: Option<impl Display>) -> Self {
        Self { is_number: true, ..Self::maybe(number) }
    }

    /// In this style.
    pub(crate) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// The cell as it can stand in a line: without line breaks and control characters, and not too wide.
    fn fit(mut self, output: &Output) -> Self {
        self.text = one_line(&self.text);
        if self.may_be_cut && output.is_terminal() && self.text.width() > MAX_CUT_WIDTH {
            while self.text.width() >= MAX_CUT_WIDTH {
                self.text.pop();
            }
            self.text.push('…');
        }
        self
    }
}

/// A table that is being filled.
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let bold = |heading: &&str| Cell::text(heading).styled(Style::new().bold());
        Self { rows: vec![headings.iter().map(bold).collect()] }
    }

    /// A table of names and values.
    pub(crate) fn fields() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a name and its value.
    pub(crate) fn field(&mut self, name: &str, value: impl Display) {
        self.field_cell(name, Cell::text(value));
    }

    /// Adds a name and its value, if there is one.
    pub(crate) fn field_if(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// Adds a name and its value with a look of its own.
    pub(crate) fn field_cell(&mut self, name: &str, value: Cell) {
        self.row([Cell::text(name).styled(Style::new().dimmed()), value]);
    }

    /// The table as text, without a line feed at its end.
    pub(crate) fn render(self, output: &Output) -> String {
        let fit = |row: Vec<Cell>| row.into_iter().map(|cell| cell.fit(output)).collect::<Vec<_>>();
        let rows: Vec<Vec<Cell>> = self.rows.into_iter().map(fit).collect();
        let columns = rows.first().map_or(0, Vec::len);
        let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
        let widths: Vec<usize> = (0..columns)
            .map(|column| cells(column).map(|cell| cell.text.width()).max().unwrap_or(0))
            .collect();
        let is_number: Vec<bool> =
            (0..columns).map(|column| cells(column).any(|cell| cell.is_number)).collect();
        let line = |row: &Vec<Cell>| {
            let padded = row.iter().zip(&widths).zip(&is_number).map(|((cell, width), is_number)| {
                let blanks = " ".repeat(width - cell.text.width());
                let text = output.paint(&cell.text, cell.style);
                if *is_number { blanks + &text } else { text + &blanks }
            });
            padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, printable};

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row([Cell::text("漢字\nx"), Cell::number(7)]);
        table.row([Cell::text("a\u{7}"), Cell::number(1_000)]);
        let text = printable(&table.render(&Output::new(Format::Human)));
        assert_eq!(text, "NAME       N\n漢字 x     7\na       1000");
    }

    #[test]
    fn absent_fields_are_left_out() {
        let mut fields = Table::fields();
        fields.field("Name", "n");
        fields.field_if("Limit", None::<i32>);
        assert_eq!(printable(&fields.render(&Output::new(Format::Human))), "Name  n");
    }
}
