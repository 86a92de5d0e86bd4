//! `altaz model`: what-ifs over recorded profiles or alone, and decision tables.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use altaz_assess::advise::advise;
use altaz_assess::risk::{Priors, Subject, assess_risk};
use altaz_assess::scenario::{Assumptions, Scenario, model_alone, model_changed};
use altaz_profile::results::risk::ModelResult;
use altaz_report::{TextOptions, advice_json, advice_text, model_json, model_text};
use anyhow::{Context as _, Result};

use crate::assess::{self, Recordings, RiskBasis, read_profiles, text_of};
use crate::cli::{AssessArgs, ChangeArgs, Context, ModelArgs, ModelVerb};
use crate::exit::{Exit, UsageError};
use crate::output::{Format, Output, write_all};

pub(crate) fn run(args: &ModelArgs, cx: &Context) -> Result<ExitCode> {
    if let Some(ModelVerb::Advise(args)) = &args.verb {
        return advice(args, cx);
    }
    refuse_html(&args.output)?;
    let (scenario_files, profile_files) = sorted(&args.files)?;
    let mut warnings = Vec::new();
    let mut scenarios = Vec::new();
    for path in &scenario_files {
        let file = path.display().to_string();
        let (scenario, problems) = Scenario::parse(&text_of(path, "scenario")?, &file)
            .map_err(|e| UsageError(e.to_string()))?;
        warnings.extend(problems.iter().map(ToString::to_string));
        scenarios.push(scenario);
    }
    if let Some(flags) = of_flags(&args.changes)? {
        scenarios.push(flags);
    }
    if scenarios.is_empty() {
        return Err(UsageError("nothing to model: name a scenario (demo/scenarios/*.toml), or say what is \
            different (--owner, --window, --density, --rewrite, --remove, --narrow, --guard, --nest)".into()).into());
    }
    let mut results = if profile_files.is_empty() {
        vec![alone(scenarios, args, &mut warnings)?]
    } else {
        changed(&scenarios, &profile_files, args, &mut warnings)?
    };
    for result in &results {
        warnings.extend(result.risk.warnings.iter().cloned());
    }
    if let Some(first) = results.first_mut() {
        first.risk.warnings.clone_from(&warnings);
    }
    write_all(&args.output, cx.color, |format, color| {
        let options = TextOptions { width: cx.columns(), color };
        match format {
            Format::Json => json(&results),
            _ => Ok(results
                .iter()
                .map(|r| model_text(r, args.explain, options))
                .collect::<Vec<_>>()
                .join("\n")),
        }
    })?;
    warnings.iter().for_each(|w| cx.ui.warn(w));
    Ok(if warnings.is_empty() { Exit::Fine } else { Exit::Incomplete }.into())
}

/// One what-if is an object, several are an array of them.
fn json(results: &[ModelResult]) -> Result<String> {
    let parts = results.iter().map(model_json).collect::<Result<Vec<_>, _>>()?;
    Ok(match &parts[..] {
        [one] => one.clone(),
        many => {
            let many: Vec<&str> = many.iter().map(|part| part.trim_end()).collect();
            format!("[\n{}\n]\n", many.join(",\n"))
        }
    })
}

fn refuse_html(outputs: &[Output]) -> Result<()> {
    if outputs.iter().any(|o| o.format == Format::Html) {
        return Err(UsageError("model writes text and json".into()).into());
    }
    Ok(())
}

/// Scenarios and profiles; directories are searched for both.
fn sorted(files: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut scenarios, mut profiles) = (Vec::new(), Vec::new());
    let is = |path: &Path, extension| path.extension().is_some_and(|e| e == extension);
    for path in files {
        if !path.is_dir() {
            if is(path, "toml") {
                scenarios.push(path.clone())
            } else {
                profiles.push(path.clone())
            }
            continue;
        }
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("cannot read the directory {}", path.display()))?;
        let mut found: Vec<PathBuf> =
            entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| is(p, "toml")).collect();
        if found.is_empty() {
            profiles.push(path.clone());
        } else {
            found.sort();
            scenarios.extend(found);
        }
    }
    Ok((scenarios, profiles))
}

/// Models side by side. Of a directory, only the scenarios that are models.
fn alone(
    mut scenarios: Vec<Scenario>,
    args: &ModelArgs,
    warnings: &mut Vec<String>,
) -> Result<ModelResult> {
    scenarios.retain(|s| s.deployment.is_some());
    let Some(first) = scenarios.first() else {
        return Err(UsageError(
            "these scenarios change a deployment: name a profile (NAME.altaz) to change".into(),
        )
        .into());
    };
    if let Some(other) = scenarios.iter().find(|s| s.assumptions != first.assumptions) {
        return Err(UsageError(format!(
            "`{}` and `{}` rest on different assumptions and cannot stand side by side",
            first.name, other.name
        ))
        .into());
    }
    let basis = RiskBasis::read(&args.risk)?;
    let priors = match first.assumptions {
        Assumptions::Uniform => Priors::uniform(),
        Assumptions::Priors => basis.priors.clone(),
    };
    if scenarios.iter().any(|s| !s.changes.is_empty()) {
        warnings.push("changes apply to recorded profiles only, and none was named".into());
    }
    Ok(model_alone(&scenarios, &priors, &basis.settings))
}

/// Every profile under every scenario.
fn changed(
    scenarios: &[Scenario],
    profiles: &[PathBuf],
    args: &ModelArgs,
    warnings: &mut Vec<String>,
) -> Result<Vec<ModelResult>> {
    let mut basis = RiskBasis::read(&args.risk)?;
    let read: Recordings = read_profiles(profiles)?;
    warnings.extend(read.warnings);
    let mut results = Vec::new();
    for (profile, result) in &read.profiles {
        let before = basis.subject(profile, result);
        for scenario in scenarios.iter().filter(|s| !s.changes.is_empty()) {
            let service = &profile.manifest.service;
            results.push(model_changed(&before, scenario, service, &basis.priors, &basis.settings));
        }
    }
    warnings.extend(basis.leftovers());
    if results.is_empty() {
        return Err(UsageError("none of these scenarios changes a recorded profile".into()).into());
    }
    Ok(results)
}

/// The changes on the command line, read as a scenario's text is.
fn of_flags(args: &ChangeArgs) -> Result<Option<Scenario>> {
    let mut text = String::from("name = \"changed\"\n");
    let mut add = |kind: &str, keys: &[(&str, toml::Value)]| {
        text.push_str(&format!("[[change]]\nkind = \"{kind}\"\n"));
        for (key, value) in keys {
            text.push_str(&format!("{key} = {value}\n"));
        }
    };
    let string = |s: &str| toml::Value::String(s.into());
    for arg in &args.owner {
        let (layer, who) = pair(arg, "--owner", "LAYER=WHO")?;
        add("owner", &[("layer", string(layer)), ("to", string(who))]);
    }
    for arg in &args.window {
        let (whose, days) = pair(arg, "--window", "LAYER|OWNER=DAYS")?;
        let key = if matches!(whose, "tenant" | "provider") { "owner" } else { "layer" };
        add("window", &[(key, string(whose)), ("days", number(days, "--window")?)]);
    }
    for arg in &args.search {
        let (layer, times) = pair(arg, "--search", "LAYER=TIMES")?;
        add("search", &[("layer", string(layer)), ("times", number(times, "--search")?)]);
    }
    for arg in &args.density {
        let (what, factor) = pair(arg, "--density", "LAYER[:COMPONENT]=FACTOR")?;
        let mut keys = place(what);
        keys.push(("factor", number(factor, "--density")?));
        add("density", &keys);
    }
    for arg in &args.rewrite {
        let (what, language) = pair(arg, "--rewrite", "LAYER[:COMPONENT]=LANGUAGE")?;
        let mut keys = place(what);
        keys.push(("language", string(language)));
        add("rewrite", &keys);
    }
    for arg in &args.remove {
        add("remove", &place(arg));
    }
    for arg in &args.narrow {
        let (boundary, n) = pair(arg, "--narrow", "BOUNDARY=N")?;
        add("narrow", &[("boundary", string(boundary)), ("permitted", whole(n, "--narrow")?)]);
    }
    for arg in &args.guard {
        let (boundary, n) = pair(arg, "--guard", "BOUNDARY=N[:KB]")?;
        let (n, kb) = n.split_once(':').unwrap_or((n, "0"));
        add(
            "guard",
            &[
                ("boundary", string(boundary)),
                ("permitted", whole(n, "--guard")?),
                ("code_kb", number(kb, "--guard")?),
            ],
        );
    }
    if args.nest {
        add("nest", &[]);
    }
    let (scenario, problems) =
        Scenario::parse(&text, "the command line").map_err(|e| UsageError(e.to_string()))?;
    if !problems.is_empty() {
        let said: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
        return Err(UsageError(said.join("; ")).into());
    }
    Ok((!scenario.changes.is_empty()).then_some(scenario))
}

fn pair<'a>(arg: &'a str, flag: &str, form: &str) -> Result<(&'a str, &'a str), UsageError> {
    arg.rsplit_once('=')
        .filter(|(a, b)| !a.is_empty() && !b.is_empty())
        .ok_or_else(|| UsageError(format!("{flag} {arg}: write {form}")))
}

fn number(text: &str, flag: &str) -> Result<toml::Value, UsageError> {
    let wrong = || UsageError(format!("{flag}: `{text}` is no number"));
    let n: f64 = text.parse().map_err(|_| wrong())?;
    if n.is_finite() { Ok(toml::Value::Float(n)) } else { Err(wrong()) }
}

fn whole(text: &str, flag: &str) -> Result<toml::Value, UsageError> {
    let n: u32 = text
        .parse()
        .map_err(|_| UsageError(format!("{flag}: `{text}` is no number of entry points")))?;
    Ok(toml::Value::Integer(n.into()))
}

/// `LAYER` or `LAYER:COMPONENT`.
fn place(text: &str) -> Vec<(&'static str, toml::Value)> {
    let string = |s: &str| toml::Value::String(s.into());
    match text.split_once(':') {
        Some((layer, component)) => {
            vec![("layer", string(layer)), ("component", string(component))]
        }
        None => vec![("layer", string(text))],
    }
}

fn advice(args: &AssessArgs, cx: &Context) -> Result<ExitCode> {
    refuse_html(&args.output)?;
    let mut basis = RiskBasis::read(&args.risk)?;
    let Recordings { profiles, mut warnings, .. } = read_profiles(&args.files)?;
    let service = assess::same_service(&profiles)?;
    let subjects: Vec<Subject> = profiles.iter().map(|(p, r)| basis.subject(p, r)).collect();
    warnings.extend(basis.leftovers());
    let mut risk = assess_risk(&service, &subjects, &basis.priors, &basis.settings);
    risk.warnings = warnings;
    let result = advise(&subjects, &risk, &basis.priors, &basis.settings);
    write_all(&args.output, cx.color, |format, color| {
        Ok(match format {
            Format::Json => advice_json(&result)?,
            _ => advice_text(&result, TextOptions { width: cx.columns(), color }),
        })
    })?;
    result.warnings.iter().for_each(|w| cx.ui.warn(w));
    Ok(if result.warnings.is_empty() { Exit::Fine } else { Exit::Incomplete }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_assess::scenario::Change;

    #[test]
    fn flags_become_changes_and_wrong_ones_say_what_to_write() {
        let args = ChangeArgs {
            owner: vec!["host-kernel=nobody".into()],
            window: vec!["provider=3".into()],
            rewrite: vec!["vmm:*/qemu*=rust".into()],
            remove: vec!["host-kernel:[bridge]".into()],
            guard: vec!["syscall=29:2".into()],
            nest: true,
            ..ChangeArgs::default()
        };
        let s = of_flags(&args).unwrap().unwrap();
        assert_eq!(s.changes.len(), 6);
        assert!(matches!(s.changes[0], Change::Owner { to: None, .. }));
        assert!(of_flags(&ChangeArgs::default()).unwrap().is_none());
        for (wrong, said) in
            [("host-kernel", "write LAYER=WHO"), ("kernel=tenant", "no layer `kernel`")]
        {
            let args = ChangeArgs { owner: vec![wrong.into()], ..ChangeArgs::default() };
            let e = of_flags(&args).unwrap_err();
            assert_eq!(crate::exit::code_of(&e), Exit::Usage);
            assert!(e.to_string().contains(said), "{e}");
        }
        let args = ChangeArgs { window: vec!["app=-2".into()], ..ChangeArgs::default() };
        assert!(of_flags(&args).unwrap_err().to_string().contains("-2"));
    }
}
