//! Tables as Go's `text/tabwriter` lays them out, which is how Docker's look.

use std::fmt::Write;

/// Cells are at least this wide, their padding included.
const CELL_WIDTH_MIN: usize = 10;
/// Spaces between a column's longest cell and the next column.
const PADDING: usize = 3;

/// The same for processes, whose columns stand further apart.
pub(crate) fn align_wide(text: &str) -> String {
    lay_out(text, 20)
}

/// Lays out lines whose cells are separated by tabs.
///
/// A column is a run of adjacent lines that have a tab after that cell; the last cell of a line belongs to no column.
pub(crate) fn align(text: &str) -> String {
    lay_out(text, CELL_WIDTH_MIN)
}

fn lay_out(text: &str, width_min: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len() - 1]).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        set_widths(&lines, &mut widths, column, width_min);
    }
    let mut out = String::new();
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, cell) in cells.iter().enumerate() {
            let width = widths.get(index).copied().unwrap_or(0);
            // Writing into a string does not fail.
            let _ = write!(out, "{cell:width$}");
        }
        out.push('\n');
    }
    out
}

/// Gives each run of lines that have a cell in this column the width of the run's longest.
fn set_widths(lines: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize, width_min: usize) {
    let mut start = 0;
    while start < lines.len() {
        if widths[start].len() <= column {
            start += 1;
            continue;
        }
        let run = lines[start..].iter().take_while(|cells| cells.len() > column + 1).count();
        let longest = lines[start..start + run].iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let width = if longest == 0 { 0 } else { (longest + PADDING).max(width_min) };
        widths[start..start + run].iter_mut().for_each(|line| line[column] = width);
        start += run;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_to_the_longest_cell() {
        let text = "REPOSITORY\tTAG\tSIZE\nbusybox\tlatest\t4.26MB\n";
        assert_eq!(align(text), "REPOSITORY   TAG       SIZE\nbusybox      latest    4.26MB\n");
    }

    #[test]
    fn a_line_without_the_cell_ends_a_column() {
        let text = "a\tb\nplain\nlonger-than-ten\tb\n";
        assert_eq!(align(text), "a         b\nplain\nlonger-than-ten   b\n");
    }
}
