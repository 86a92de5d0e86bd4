//! `altaz diff`: two profiles against each other.

use std::process::ExitCode;

use altaz_assess::Named;
use altaz_profile::file;
use altaz_profile::results::diff::{DiffCheck, DiffResult};
use altaz_report::{TextOptions, diff_html, diff_json, diff_text};
use anyhow::Context as _;

use crate::cli::{Context, DiffArgs};
use crate::exit::Exit;
use crate::output::{Format, write_all};

pub(crate) fn run(args: &DiffArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let (a, b) = (file::read(&args.a)?, file::read(&args.b)?);
    let names = [&args.a, &args.b].map(|path| path.display().to_string());
    let before = Named { file: &names[0], profile: &a };
    let after = Named { file: &names[1], profile: &b };
    let result = altaz_assess::diff(before, after, args.phase)
        .with_context(|| format!("cannot compare {} and {}", names[0], names[1]))?;
    write_all(&args.output, cx.color, |format, color| {
        Ok(match format {
            Format::Text => {
                let options = TextOptions { width: cx.columns(), color };
                diff_text(&result, args.top, options)
            }
            Format::Json => diff_json(&result)?,
            Format::Html => diff_html(&result, args.top),
        })
    })?;
    if !args.check {
        return Ok(Exit::Fine.into());
    }
    let (exit, verdict) = verdict(&result);
    if exit != Exit::Fine {
        cx.ui.error(&verdict);
    }
    Ok(exit.into())
}

/// What a gate makes of it, and in words.
fn verdict(result: &DiffResult) -> (Exit, String) {
    let DiffCheck { new_functions, new_entries, wider_posture, undetermined } = result.check;
    if result.check.anything_new() {
        let parts = [
            (new_functions, "functions that are really new"),
            (new_entries, "entry points that were not permitted before"),
            (wider_posture, "wider rights of processes"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        let parts = parts.collect::<Vec<_>>().join(", ");
        let text = format!("{} has what {} has not: {parts}", result.b.file, result.a.file);
        return (Exit::NotMet, text);
    }
    if undetermined > 0 {
        let why = result.a.inconclusive.as_deref().unwrap_or("it does not say why");
        let text = format!(
            "{undetermined} functions are new in {}, and {} does not tell whether they really are: \
             {why}; record it again",
            result.b.file, result.a.file
        );
        return (Exit::Incomplete, text);
    }
    (Exit::Fine, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::{InstrumentKind, Phase};

    fn result(check: DiffCheck) -> DiffResult {
        let side = |file: &str| altaz_profile::results::diff::DiffSide {
            file: file.into(),
            service: "web".into(),
            deployment: "runc".into(),
            recorded_at: String::new(),
            instrument: InstrumentKind::Exact,
            host: altaz_profile::Host {
                kernel: String::new(),
                arch: String::new(),
                cpu: String::new(),
                cpus: 1,
            },
            functions: 1,
            windows: 1,
            watched_s: 1.0,
            lost_events: 0,
            coverage: None,
            unseen: None,
            missed: None,
            inconclusive: Some("it has no calibration".into()),
        };
        DiffResult {
            schema: String::new(),
            phase: Phase::Serve,
            a: side("a.altaz"),
            b: side("b.altaz"),
            limits: vec![],
            functions: Default::default(),
            layers: vec![],
            new: vec![],
            gone: vec![],
            boundaries: vec![],
            posture: vec![],
            check,
        }
    }

    #[test]
    fn a_gate_fails_on_what_is_new_before_it_says_that_it_cannot_tell() {
        let none = DiffCheck::default();
        assert_eq!(verdict(&result(none)).0, Exit::Fine);
        let unsure = DiffCheck { undetermined: 4, ..none };
        let (exit, text) = verdict(&result(unsure));
        assert_eq!(exit, Exit::Incomplete);
        assert!(text.contains("4 functions") && text.contains("it has no calibration"), "{text}");
        let wider = DiffCheck { wider_posture: 1, ..unsure };
        assert_eq!(verdict(&result(wider)).0, Exit::NotMet);
    }
}
