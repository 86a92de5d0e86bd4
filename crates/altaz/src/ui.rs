//! What the user sees while altaz works: everything here goes to standard error.
//!
//! On a terminal, bars with the time left. Elsewhere (a log, a CI run) plain and sparse lines. With
//! `--quiet` warnings only.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Between two lines about the same step.
const EVERY: Duration = Duration::from_secs(15);

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorWhen {
    /// Whether to colour what goes to a stream.
    pub fn on(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
                !no_color && !dumb && stream.is_terminal()
            }
        }
    }
}

#[derive(Clone)]
enum Mode {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

/// Speaks to the user. Clones speak through the same mouth.
#[derive(Clone)]
pub struct Ui {
    mode: Mode,
    color: bool,
}

impl Ui {
    /// For this process's standard error.
    pub fn new(quiet: bool, color: ColorWhen) -> Self {
        let stderr = std::io::stderr();
        let mode = match quiet {
            true => Mode::Quiet,
            false if stderr.is_terminal() => Mode::Bars(MultiProgress::new()),
            false => Mode::Lines,
        };
        Self { mode, color: color.on(&stderr) }
    }

    /// A line that says what happens.
    pub fn note(&self, text: &str) {
        if !matches!(self.mode, Mode::Quiet) {
            self.line(text);
        }
    }

    /// A line that must not be missed, whatever the mode.
    pub fn warn(&self, text: &str) {
        let mark = if self.color { "\x1b[33mwarning:\x1b[0m" } else { "warning:" };
        self.line(&format!("{mark} {text}"));
    }

    /// The last line of a run that failed.
    pub fn error(&self, text: &str) {
        let mark = if self.color { "\x1b[31maltaz:\x1b[0m" } else { "altaz:" };
        self.line(&format!("{mark} {text}"));
    }

    fn line(&self, text: &str) {
        // Nothing sensible can be done when standard error is closed or full.
        let write = || drop(writeln!(std::io::stderr().lock(), "{text}"));
        match &self.mode {
            Mode::Bars(bars) => bars.suspend(write),
            _ => write(),
        }
    }

    /// Begins a step of `total` parts (requests, seconds …); `None` when nobody knows how many.
    /// It ends when [`Step::done`] is called or it is dropped.
    pub fn step(&self, title: &str, total: Option<u64>) -> Step {
        let bar = match &self.mode {
            Mode::Bars(bars) => Some(bars.add(new_bar(title, total))),
            Mode::Lines => {
                self.line(&format!("{title} …"));
                None
            }
            Mode::Quiet => None,
        };
        let begin = Instant::now();
        Step {
            ui: self.clone(),
            title: title.to_owned(),
            total,
            begin,
            bar,
            last_line: Arc::new(Mutex::new(begin)),
        }
    }
}

fn new_bar(title: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{prefix} {bar:30} {pos}/{len}, {eta} left {wide_msg:.dim}")
        }
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} {elapsed} {wide_msg:.dim}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Something that takes a while. May be told about progress from any thread.
pub struct Step {
    ui: Ui,
    title: String,
    total: Option<u64>,
    begin: Instant,
    bar: Option<ProgressBar>,
    last_line: Arc<Mutex<Instant>>,
}

impl Step {
    /// How far it is.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if let Some(total) = self.total.filter(|t| *t > 0) {
            self.sparse(&match done {
                // Some loads say how far they are at their end only.
                0 => format!("0 of {total}"),
                _ => {
                    let ahead = total.saturating_sub(done) as f64 / done as f64;
                    let left = self.begin.elapsed().as_secs_f64() * ahead;
                    format!("{done} of {total}, about {} left", in_words(left))
                }
            });
        }
    }

    /// What it is doing just now (a tool's last line).
    pub fn detail(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(printable(text)),
            None => self.sparse(&printable(text)),
        }
    }

    /// One line now and then.
    fn sparse(&self, text: &str) {
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= EVERY {
            *last = Instant::now();
            self.ui.note(&format!("{}: {text}", self.title));
        }
    }

    /// It succeeded; `outcome` says how, if there is more to say than that.
    pub fn done(self, outcome: &str) {
        let took = in_words(self.begin.elapsed().as_secs_f64());
        let text = if outcome.is_empty() {
            format!("{}: {took}", self.title)
        } else {
            format!("{}: {outcome}, {took}", self.title)
        };
        let ui = self.ui.clone();
        drop(self);
        ui.note(&text);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A tool's output without what would move the cursor.
fn printable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().to_owned()
}

/// `3.2 s`, `47 s`, `3 min 5 s`.
pub fn in_words(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 119.5 => format!("{s:.0} s"),
        s => format!("{} min {} s", (s / 60.0) as u64, (s % 60.0) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_readable() {
        assert_eq!(in_words(0.04), "0.0 s");
        assert_eq!(in_words(9.96), "10 s");
        assert_eq!(in_words(185.0), "3 min 5 s");
    }

    #[test]
    fn a_tools_output_cannot_move_the_cursor() {
        assert_eq!(printable("\x1b[2Jab\rc\n"), "[2Jab c");
    }
}
