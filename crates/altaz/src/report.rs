//! `altaz report`: reads recorded profiles and prints what is in them.

mod known;

use std::process::ExitCode;

use altaz_assess::Options;
use altaz_profile::results::{CompareResult, ProfileReport};
use altaz_profile::{Profile, file};
use altaz_report::{
    ReportError, TextOptions, compare_html, profile_html, profile_json, profile_text,
};
use anyhow::Context as _;

use crate::assess;
use crate::cli::{Context, ReportArgs};
use crate::exit::Exit;
use crate::output::{Format, write_all};

pub(crate) fn run(args: &ReportArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let options = Options { components: args.top };
    let mut reports = Vec::new();
    let mut functions = Vec::new();
    // One page holds one profile or a comparison, so an HTML report of several needs them all.
    let together = args.files.len() > 1 && args.output.iter().any(|o| o.format == Format::Html);
    let mut profiles = Vec::new();
    for path in &args.files {
        let profile = file::read(path)?;
        let report = altaz_assess::report(&profile, &options)
            .with_context(|| format!("cannot assess {}", path.display()))?;
        reports.push(report);
        functions.push(altaz_assess::functions(&profile));
        if together {
            profiles.push(profile);
        }
    }
    if let Some(triage) = &args.triage {
        known::join(triage, &mut functions)?;
    }
    let comparison = together.then(|| side_by_side(profiles, &options)).transpose()?;
    write_all(&args.output, cx.color, |format, color| {
        let parts: Vec<String> = match format {
            Format::Text => {
                let options = TextOptions { width: cx.columns(), color };
                reports.iter().map(|r| profile_text(r, options)).collect()
            }
            Format::Html => match &comparison {
                Some(result) => vec![compare_html(result, &functions)],
                None => reports
                    .iter()
                    .zip(&functions)
                    .map(|(report, functions)| profile_html(report, Some(functions)))
                    .collect(),
            },
            Format::Json => return Ok(json(&reports)?),
        };
        Ok(parts.join("\n"))
    })?;
    Ok(Exit::Fine.into())
}

/// Several recordings as a comparison, as `altaz compare` makes it of its own: those of the same
/// deployment are repeats of each other.
fn side_by_side(profiles: Vec<Profile>, options: &Options) -> anyhow::Result<CompareResult> {
    let mut of_deployment: Vec<Vec<Profile>> = Vec::new();
    for profile in profiles {
        let name = &profile.manifest.deployment;
        let same = of_deployment
            .iter_mut()
            .find(|of| of.first().is_some_and(|p| p.manifest.deployment == *name));
        match same {
            Some(same) => same.push(profile),
            None => of_deployment.push(vec![profile]),
        }
    }
    let (mut results, mut measured) = (Vec::new(), Vec::new());
    for same in of_deployment {
        let all: Vec<&Profile> = same.iter().collect();
        let result = altaz_assess::assess_repeats(&all, options)
            .context("cannot assess the recordings of one deployment together")?;
        results.push(result.clone());
        measured.extend(same.into_iter().next().map(|first| (first, result)));
    }
    let (first, _) = measured.first().context("a report needs a profile")?;
    let (service, host) = (first.manifest.service.clone(), first.manifest.host.clone());
    let mut result = altaz_assess::compare(&service, host, results)?;
    result.risk = Some(assess::of_measured(&service, &measured)?);
    Ok(result)
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
