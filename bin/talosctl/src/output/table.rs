//! Plain columns: each as wide as its widest cell plus three spaces, the last one without padding.

/// Spaces between columns.
const PADDING: usize = 3;

/// Rows of text that are aligned when they are shown. Widths only grow, so that rows that come later line up with
/// those that were shown before as well as they can.
#[derive(Debug, Default, Clone)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self::default();
        table.row(header);
        table
    }

    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell.into())).collect());
    }

    /// The rows that were not shown yet, without the last line's end.
    pub(crate) fn take(&mut self) -> String {
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match self.widths.get_mut(at) {
                    Some(known) => *known = (*known).max(width),
                    None => self.widths.push(width),
                }
            }
        }
        let rows = std::mem::take(&mut self.rows);
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

/// Control characters would break the columns (and could drive the terminal).
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
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(["a\nb\u{1b}[31m"]);
        assert_eq!(table.take(), "a b [31m");
    }
}
