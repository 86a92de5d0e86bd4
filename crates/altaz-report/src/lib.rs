//! From an assessment's values to what people and programs read: text for a terminal, JSON, HTML.
//!
//! Pure: values in, strings out. What is absent here: files, terminals (the caller says how wide
//! they are and whether they show colour), and any figure that the values do not already hold.
//! Only this crate knows HTML.
//!
//! Every text that comes out of a profile is somebody else's: control characters are made visible
//! before a terminal sees them, and markup is escaped before a browser does.

mod compare;
mod diff;
mod html;
mod json;
mod model;
mod number;
mod parts;
mod profile;
mod risk;
mod style;
mod table;
mod triage;
mod vex;

pub use compare::compare_text;
pub use diff::diff_text;
pub use html::{compare_html, diff_html, profile_html};
pub use json::{
    ReportError, advice_json, assess_json, compare_json, diff_json, model_json, profile_json,
    triage_json,
};
pub use model::{advice_text, model_text};
pub use profile::profile_text;
pub use risk::{assess_text, risk_section};
pub use triage::triage_text;
pub use vex::{OpenVexForm, VexOptions, cyclonedx, openvex};

/// The narrowest text that is drawn: a terminal of fewer columns wraps by itself.
pub const MIN_WIDTH: usize = 80;

/// How a text is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextOptions {
    /// Columns of the terminal. Less than [`MIN_WIDTH`] counts as that.
    pub width: usize,
    /// Whether to colour (the caller knows `NO_COLOR` and whether it is a terminal). Nothing is
    /// said by colour alone.
    pub color: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { width: 100, color: false }
    }
}

impl TextOptions {
    fn columns(self) -> usize {
        self.width.max(MIN_WIDTH)
    }
}
