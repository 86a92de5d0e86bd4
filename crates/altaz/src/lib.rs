//! The `altaz` command as a library: command line, load generator, progress, wiring.
//!
//! The only crate that knows clap and anyhow. It joins the other crates and decides nothing that a
//! profile or an assessment should decide.

mod assess;
pub mod cli;
pub mod compare;
pub mod config;
mod diff;
mod doctor;
pub mod exit;
mod feeds;
mod inventory;
mod join;
mod lab;
pub mod load;
mod model;
pub mod output;
pub mod process;
mod record;
mod report;
pub mod signals;
pub mod triage;
pub mod ui;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Context, Verb};
use crate::exit::Exit;

/// Runs altaz with a command line (program name first) and returns its exit code. Must be called
/// before any thread is started.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => return usage(&e).into(),
    };
    let ui = ui::Ui::new(cli.global.quiet, cli.global.color);
    let result = Context::new(&cli.global, ui.clone()).and_then(|cx| {
        cx.settings.export();
        match &cli.verb {
            Verb::Doctor(args) => doctor::run(args, &cx),
            Verb::Lab(args) => lab::run(args, &cx),
            Verb::Compare(args) => compare::run(args, &cx),
            Verb::Report(args) => report::run(args, &cx),
            Verb::Assess(args) => assess::run(args, &cx),
            Verb::Model(args) => model::run(args, &cx),
            Verb::Diff(args) => diff::run(args, &cx),
            Verb::Join(args) => join::run(args, &cx),
            Verb::Record(args) => record::run(args, &cx),
            Verb::Watch(args) => record::watch(args, &cx),
            Verb::Feeds(args) => feeds::run(args, &cx),
            Verb::Triage(args) => triage::run(args, &cx),
            Verb::Inventory(args) => inventory::run(args, &cx),
        }
    });
    match result {
        Ok(code) => code,
        Err(e) => {
            ui.error(&exit::message(&e));
            exit::code_of(&e).into()
        }
    }
}

/// Prints what clap has to say: help and version on standard output, mistakes on standard error.
fn usage(e: &clap::Error) -> Exit {
    // Nobody to tell when the stream is closed.
    let _ = e.print();
    if e.use_stderr() { Exit::Usage } else { Exit::Fine }
}
