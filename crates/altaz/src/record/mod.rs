//! `altaz record` and `altaz watch`: wiring of the live instrument.

mod command;
mod rights;
mod usage;

use std::process::ExitCode;

use crate::cli::{Context, RecordArgs, WatchArgs};

pub(crate) fn run(_args: &RecordArgs, _cx: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("in the making")
}

pub(crate) fn watch(_args: &WatchArgs, _cx: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("in the making")
}
