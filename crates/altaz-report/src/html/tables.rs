//! The tables of the text report, as tables of a page.

use maud::{Markup, html};

use super::text::{spans, t};
use crate::table::{Align, Cell, Row, Table};

/// A table; where it is too wide for the page it scrolls by itself, by keys too.
pub fn table(table: &Table, name: &str) -> Markup {
    let class = |align: Align| match align {
        Align::Left => None,
        Align::Right => Some("n"),
    };
    let after_rule = |i: usize| i > 0 && matches!(table.rows.get(i - 1), Some(Row::Rule));
    html! {
        div class="scroll" role="region" tabindex="0" aria-label=(t(name)) {
            table {
                thead {
                    tr {
                        @for c in &table.columns {
                            th scope="col" class=[class(c.align)] { (t(c.head)) }
                        }
                    }
                }
                tbody {
                    @for (i, row) in table.rows.iter().enumerate() {
                        @match row {
                            Row::Cells(cells) => {
                                tr class=[after_rule(i).then_some("rule")] {
                                    @for (column, cell) in table.columns.iter().zip(cells) {
                                        td class=[of_cell(class(column.align), cell)] { (spans(cell)) }
                                    }
                                }
                            }
                            Row::Across(cell, _) => {
                                tr class="across" { td colspan=(table.columns.len()) { (spans(cell)) } }
                            }
                            Row::Rule | Row::Blank => {}
                        }
                    }
                }
            }
        }
    }
}

/// Alignment of a cell and the indent of its text, as classes.
fn of_cell(align: Option<&'static str>, cell: &Cell) -> Option<&'static str> {
    let text = cell.first().map_or("", |s| s.text.as_str());
    match text.len() - text.trim_start_matches(' ').len() {
        // Two columns are the indent of every line below a heading.
        0..=2 => align,
        _ => Some("in"),
    }
}
