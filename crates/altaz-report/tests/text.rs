//! What people read on a terminal.

mod common;

use altaz_report::{TextOptions, compare_text, profile_text};

fn options(width: usize) -> TextOptions {
    TextOptions { width, color: false }
}

#[test]
fn four_deployments_side_by_side_on_a_terminal_of_100_columns() {
    insta::assert_snapshot!(compare_text(&common::compare(), options(100)));
}

#[test]
fn four_deployments_side_by_side_on_a_terminal_of_80_columns() {
    insta::assert_snapshot!(compare_text(&common::compare(), options(80)));
}

#[test]
fn one_profile_on_a_terminal_of_100_columns() {
    insta::assert_snapshot!(profile_text(&common::profile(common::runc()), options(100)));
}
