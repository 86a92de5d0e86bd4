//! Tables of styled text for a terminal of a given width.

use crate::style::{Span, Style, width, wrap};

/// Space between two columns, where there is room; else one.
const GAP: usize = 2;

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// At the left.
    Left,
    /// At the right, as numbers do.
    Right,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading.
    pub head: &'static str,
    /// Alignment.
    pub align: Align,
    /// Width to which the column may shrink when the table is too wide; its text is wrapped then.
    /// `None`: only the heading is wrapped, never the text.
    pub min: Option<usize>,
}

/// A column of numbers: right-aligned, never wrapped.
pub const fn numbers(head: &'static str) -> Column {
    Column { head, align: Align::Right, min: None }
}

/// A column of short words that are never wrapped.
pub const fn labels(head: &'static str) -> Column {
    Column { head, align: Align::Left, min: None }
}

/// A column of words that may be wrapped down to this width.
pub const fn words(head: &'static str, min: usize) -> Column {
    Column { head, align: Align::Left, min: Some(min) }
}

/// A cell: one or more pieces of text on a line. Only cells of one piece are wrapped.
pub type Cell = Vec<Span>;

/// A cell of one piece.
pub fn cell(text: impl AsRef<str>, style: Style) -> Cell {
    vec![Span::new(text, style)]
}

/// A plain cell.
pub fn plain(text: impl AsRef<str>) -> Cell {
    cell(text, Style::Plain)
}

/// A line of a table.
#[derive(Debug, Clone)]
pub enum Row {
    /// A cell for each column.
    Cells(Vec<Cell>),
    /// Text across all columns, wrapped with a hanging indent of this many columns.
    Across(Cell, usize),
    /// A horizontal rule.
    Rule,
    /// An empty line.
    Blank,
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    /// The columns.
    pub columns: Vec<Column>,
    /// The lines below the heading.
    pub rows: Vec<Row>,
}

impl Table {
    /// A table without lines.
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a line of cells.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row::Cells(cells));
    }

    /// Draws the table, at most `limit` columns wide.
    pub fn render(&self, out: &mut String, limit: usize, color: bool) {
        let (widths, gap) = self.widths(limit);
        let total = widths.iter().sum::<usize>() + gap * (widths.len() - 1);
        self.heads(out, &widths, gap, color);
        rule(out, total, color);
        for row in &self.rows {
            match row {
                Row::Cells(cells) => {
                    let lines = cells.iter().zip(&widths).map(|(c, &w)| fold(c, w)).collect();
                    self.draw(out, lines, &widths, gap, color);
                }
                Row::Across(spans, hang) => across(out, spans, *hang, limit, color),
                Row::Rule => rule(out, total, color),
                Row::Blank => out.push('\n'),
            }
        }
    }

    /// Headings, wrapped, their last lines beside each other.
    fn heads(&self, out: &mut String, widths: &[usize], gap: usize, color: bool) {
        let mut heads: Vec<Vec<Cell>> = self
            .columns
            .iter()
            .zip(widths)
            .map(|(c, &w)| fold(&cell(c.head, Style::Dim), w))
            .collect();
        let height = heads.iter().map(Vec::len).max().unwrap_or(0);
        for lines in &mut heads {
            let missing = height - lines.len();
            lines.splice(0..0, std::iter::repeat_n(Cell::new(), missing));
        }
        self.draw(out, heads, widths, gap, color);
    }

    /// Widths of the columns and the gap between them: natural where that fits; else the widest
    /// column that may shrink gives way first.
    fn widths(&self, limit: usize) -> (Vec<usize>, usize) {
        let texts: Vec<usize> = (0..self.columns.len()).map(|i| self.text_width(i)).collect();
        let natural: Vec<usize> =
            texts.iter().zip(&self.columns).map(|(t, c)| (*t).max(width(c.head))).collect();
        let least: Vec<usize> = (0..natural.len())
            .map(|i| {
                let head = longest_word(self.columns[i].head);
                self.columns[i].min.unwrap_or(texts[i].max(head)).min(natural[i])
            })
            .collect();
        let gaps = gaps_between(natural.len());
        let fits = |gap: usize| least.iter().sum::<usize>() + gap * gaps <= limit;
        let gap = if fits(GAP) { GAP } else { 1 };
        let available = limit.saturating_sub(gap * gaps);

        let mut widths = natural.clone();
        while widths.iter().sum::<usize>() > available {
            let widest =
                (0..widths.len()).filter(|&i| widths[i] > least[i]).max_by_key(|&i| widths[i]);
            match widest {
                Some(i) => widths[i] -= 1,
                None => break,
            }
        }
        // Wrapping leaves room at the ends of lines: the column that lacks most gets it.
        for (i, w) in widths.iter_mut().enumerate().filter(|(i, w)| **w < natural[*i]) {
            *w = self.folded_width(i, *w);
        }
        let spare = available.saturating_sub(widths.iter().sum());
        let lacking = (0..widths.len()).max_by_key(|&i| natural[i].saturating_sub(widths[i]));
        if let Some(i) = lacking {
            widths[i] = natural[i].min(widths[i] + spare);
        }
        (widths, gap)
    }

    /// Width of a column's widest cell.
    fn text_width(&self, column: usize) -> usize {
        self.cells(column).map(|c| c.iter().map(|s| width(&s.text)).sum()).max().unwrap_or(0)
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &Cell> {
        self.rows.iter().filter_map(move |row| match row {
            Row::Cells(cells) => cells.get(column),
            _ => None,
        })
    }

    /// Width that a column's text takes when it is wrapped at `limit`.
    fn folded_width(&self, column: usize, limit: usize) -> usize {
        let head = wrap(self.columns[column].head, limit);
        self.cells(column)
            .flat_map(|c| fold(c, limit))
            .map(|line| line.iter().map(|s| width(&s.text)).sum())
            .chain(head.iter().map(|h| width(h)))
            .max()
            .unwrap_or(limit)
    }

    fn draw(
        &self,
        out: &mut String,
        lines: Vec<Vec<Cell>>,
        widths: &[usize],
        gap: usize,
        color: bool,
    ) {
        let height = lines.iter().map(Vec::len).max().unwrap_or(0);
        let empty = Cell::new();
        for y in 0..height {
            let mut line = String::new();
            let mut pending = 0;
            for ((column, cell), &w) in self.columns.iter().zip(&lines).zip(widths) {
                let spans = cell.get(y).unwrap_or(&empty);
                let used: usize = spans.iter().map(|s| width(&s.text)).sum();
                let space = w.saturating_sub(used);
                let (before, after) = match column.align {
                    Align::Left => (0, space),
                    Align::Right => (space, 0),
                };
                if used > 0 {
                    line.extend(std::iter::repeat_n(' ', pending + before));
                    spans.iter().for_each(|s| s.paint(&mut line, color));
                    pending = after + gap;
                } else {
                    pending += w + gap;
                }
            }
            out.push_str(&line);
            out.push('\n');
        }
    }
}

/// Lines of a cell of this width; all of them keep the indent of the text.
fn fold(cell: &Cell, limit: usize) -> Vec<Cell> {
    match cell.as_slice() {
        [span] if width(&span.text) > limit => {
            let text = span.text.trim_start_matches(' ');
            let indent = (span.text.len() - text.len()).min(limit / 2);
            wrap(text, limit - indent)
                .into_iter()
                .map(|line| vec![Span { text: format!("{:indent$}{line}", ""), style: span.style }])
                .collect()
        }
        _ => vec![cell.clone()],
    }
}

fn gaps_between(columns: usize) -> usize {
    columns.saturating_sub(1)
}

fn longest_word(text: &str) -> usize {
    text.split(' ').map(width).max().unwrap_or(0)
}

/// A rule of this width.
fn rule(out: &mut String, total: usize, color: bool) {
    Span { text: "─".repeat(total), style: Style::Dim }.paint(out, color);
    out.push('\n');
}

/// Pieces of text one after the other, wrapped; following lines are indented by `hang`.
pub fn across(out: &mut String, spans: &[Span], hang: usize, limit: usize, color: bool) {
    let mut lines: Vec<Vec<Span>> = vec![Vec::new()];
    let (mut column, mut start) = (0, true);
    let mut spaces = 0;
    let room = limit.saturating_sub(hang).max(1);
    for span in spans {
        for (i, word) in span.text.split(' ').enumerate() {
            spaces += usize::from(i > 0);
            if word.is_empty() {
                continue;
            }
            if !start && column + spaces + width(word) > limit {
                (spaces, column) = (hang, 0);
                lines.push(Vec::new());
            }
            for (i, piece) in wrap(word, room).into_iter().enumerate() {
                if i > 0 {
                    (spaces, column) = (hang, 0);
                    lines.push(Vec::new());
                }
                column += spaces + width(&piece);
                let text = format!("{}{piece}", " ".repeat(std::mem::take(&mut spaces)));
                push(lines.last_mut(), Span { text, style: span.style });
            }
            start = false;
        }
    }
    for line in lines {
        line.iter().for_each(|s| s.paint(out, color));
        out.push('\n');
    }
}

/// Appends a piece, joined to the last one when that has the same style.
fn push(line: Option<&mut Vec<Span>>, span: Span) {
    let Some(line) = line else { return };
    match line.last_mut().filter(|last| last.style == span.style) {
        Some(last) => last.text.push_str(&span.text),
        None => line.push(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_wide_wraps_its_words_and_keeps_its_numbers() {
        let mut t = Table::new(vec![words("layer", 8), numbers("functions"), words("blind", 8)]);
        t.row(vec![
            plain("language-runtime"),
            plain("1,204"),
            plain("jit 12.0 kB, unnamed 3.0 kB"),
        ]);
        let mut out = String::new();
        t.render(&mut out, 34, false);
        assert_eq!(
            out,
            "layer      functions  blind\n\
             ──────────────────────────────────\n\
             language-      1,204  jit 12.0 kB,\n\
             runtime               unnamed 3.0\n\
             \u{20}                     kB\n"
        );
        assert!(out.lines().all(|l| width(l) <= 34), "{out}");
    }

    #[test]
    fn text_across_wraps_with_a_hanging_indent() {
        let mut out = String::new();
        let spans =
            [Span::new("note  ", Style::Dim), Span::new("one two three four", Style::Plain)];
        across(&mut out, &spans, 6, 15, false);
        assert_eq!(out, "note  one two\n      three\n      four\n");
    }
}
