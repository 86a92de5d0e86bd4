//! What is wrong with a text that somebody wrote, and where.

use std::ops::Range;

use altaz_profile::Layer;

/// A mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, or the file alone.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A text that cannot be used, with everything that is wrong in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} cannot be used: {}", list(problems))]
pub struct Problems {
    /// What it is (`contract`, `scenario`, `priors`).
    pub what: &'static str,
    /// At least one.
    pub problems: Vec<Problem>,
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A text under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'t> {
    file: &'t str,
    text: &'t str,
}

impl<'t> Place<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text }
    }

    /// A problem at a byte range.
    pub(crate) fn at(&self, span: Range<usize>, message: String) -> Problem {
        let at = (0..=span.start.min(self.text.len()))
            .rev()
            .find(|i| self.text.is_char_boundary(*i))
            .unwrap_or(0);
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Problem { place: format!("{}:{line}:{column}", self.file), message }
    }

    /// A problem of the whole text.
    pub(crate) fn whole(&self, message: String) -> Problem {
        Problem { place: self.file.to_owned(), message }
    }

    /// What the parser says.
    pub(crate) fn syntax(&self, e: &toml::de::Error) -> Problems {
        let message = e.message().to_owned();
        let problem = match e.span() {
            Some(span) => self.at(span, message),
            None => self.whole(message),
        };
        Problems { what: "file", problems: vec![problem] }
    }

    pub(crate) fn unknown_layer(&self, name: &str) -> String {
        let known: Vec<&str> = Layer::ALL.iter().map(|l| l.as_str()).collect();
        format!("there is no layer `{name}`; there are {}", known.join(", "))
    }
}
