//! Plain columns: each as wide as its widest cell plus three spaces, the last without padding.

/// Spaces between columns.
const PADDING: usize = 3;

/// Rows aligned when they are printed. Widths only grow, so that later rows line up with earlier ones as well as
/// possible.
#[derive(Debug, Default, Clone)]
pub(crate) struct Table {
    /// Cleared after printing.
    header: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: Some(cells(header)), ..Self::default() }
    }

    /// Minimum column widths, for rows that arrive one by one.
    pub(crate) fn with_widths(self, widths: impl Into<Vec<usize>>) -> Self {
        Self { widths: widths.into(), ..self }
    }

    /// Whether unprinted rows exist, not counting the header.
    pub(crate) fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(self::cells(cells));
    }

    /// The unprinted header and rows, without a final newline.
    pub(crate) fn take(&mut self) -> String {
        let rows: Vec<_> = self.header.take().into_iter().chain(std::mem::take(&mut self.rows)).collect();
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match self.widths.get_mut(at) {
                    Some(known) => *known = (*known).max(width),
                    None => self.widths.push(width),
                }
            }
        }
        let lines: Vec<String> = rows.iter().map(|row| self.render(row)).collect();
        lines.join("\n")
    }

    fn render(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if at + 1 < row.len() {
                let width = self.widths.get(at).copied().unwrap_or_default() + PADDING;
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        line
    }
}

fn cells<S: Into<String>>(cells: impl IntoIterator<Item = S>) -> Vec<String> {
    cells.into_iter().map(|cell| one_line(&cell.into())).collect()
}

/// Control characters would break the columns and could control the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_by_three_spaces_and_the_last_is_not() {
        let mut table = Table::new(["NODE", "ID", "LAST"]);
        table.row(["10.5.0.2", "é", "x"]);
        table.row(["", "apid", ""]);
        assert_eq!(table.take(), "NODE       ID     LAST\n10.5.0.2   é      x\n           apid   ");
    }

    #[test]
    fn later_rows_keep_the_width_of_earlier_ones() {
        let mut table = Table::new(["NODE", "ID"]);
        table.row(["10.5.0.2", "a"]);
        table.take();
        table.row(["x", "b"]);
        assert_eq!(table.take(), "x          b");
    }

    #[test]
    fn the_header_is_shown_once_and_is_no_row() {
        let mut table = Table::new(["NODE", "ID"]).with_widths([8]);
        assert!(!table.has_rows());
        table.row(["x", "a"]);
        assert!(table.has_rows());
        assert_eq!(table.take(), "NODE       ID\nx          a");
        assert_eq!((table.has_rows(), table.take()), (false, String::new()));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(["a\nb\u{1b}[31m"]);
        assert_eq!(table.take(), "a b [31m");
    }
}
