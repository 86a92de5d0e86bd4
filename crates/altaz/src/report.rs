//! `altaz report`: reads recorded profiles and prints what is in them.

use std::process::ExitCode;

use altaz_assess::Options;
use altaz_profile::file;
use altaz_profile::results::ProfileReport;
use altaz_report::{ReportError, TextOptions, profile_html, profile_json, profile_text};
use anyhow::Context as _;

use crate::cli::{Context, ReportArgs};
use crate::exit::{Exit, UsageError};
use crate::output::{Format, write_all};

pub(crate) fn run(args: &ReportArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let html = args.output.iter().any(|o| o.format == Format::Html);
    if html && args.files.len() > 1 {
        return Err(UsageError("an HTML report holds one profile: name one file".into()).into());
    }
    let options = Options { components: args.top };
    let mut reports = Vec::new();
    for path in &args.files {
        let profile = file::read(path)?;
        let report = altaz_assess::report(&profile, &options)
            .with_context(|| format!("cannot assess {}", path.display()))?;
        reports.push(report);
    }
    write_all(&args.output, cx.color, |format, color| {
        let parts: Vec<String> = match format {
            Format::Text => {
                let options = TextOptions { width: cx.columns(), color };
                reports.iter().map(|r| profile_text(r, options)).collect()
            }
            Format::Html => reports.iter().map(profile_html).collect(),
            Format::Json => return Ok(json(&reports)?),
        };
        Ok(parts.join("\n"))
    })?;
    Ok(Exit::Fine.into())
}

/// One profile is an object, several are an array of them.
fn json(reports: &[ProfileReport]) -> Result<String, ReportError> {
    let parts = reports.iter().map(profile_json).collect::<Result<Vec<_>, _>>()?;
    Ok(match &parts[..] {
        [one] => one.clone(),
        many => {
            let many: Vec<&str> = many.iter().map(|part| part.trim_end()).collect();
            format!("[\n{}\n]\n", many.join(",\n"))
        }
    })
}
