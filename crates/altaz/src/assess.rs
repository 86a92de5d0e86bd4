//! `altaz assess`: recorded profiles under contracts, with their risk; and the same for `altaz
//! compare`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use altaz_assess::contract::PRESETS;
use altaz_assess::risk::{Known, Priors, Settings, Subject, assess_risk};
use altaz_assess::{Contract, Options};
use altaz_feeds::{Feed, Store};
use altaz_profile::results::DeploymentResult;
use altaz_profile::results::risk::RiskResult;
use altaz_profile::{Profile, file};
use altaz_report::{TextOptions, assess_json, assess_text};
use anyhow::{Context as _, Result, bail};

use crate::cli::{AssessArgs, Context, RiskArgs};
use crate::exit::{Exit, UsageError};
use crate::output::{Format, write_all};
use crate::{feeds, inventory, triage};

/// Seconds in a year.
const SECONDS_A_YEAR: f64 = 365.25 * 86_400.0;

pub(crate) fn run(args: &AssessArgs, cx: &Context) -> Result<ExitCode> {
    if args.output.iter().any(|o| o.format == Format::Html) {
        return Err(UsageError("assess writes text and json; compare writes html".into()).into());
    }
    let mut basis = RiskBasis::read(&args.risk)?;
    let Recordings { profiles, files, mut warnings } = read_profiles(&args.files)?;
    let service = same_service(&profiles)?;
    let store = args.feeds.as_deref().map(feeds::load).transpose()?;
    let notes: Vec<String> = store.iter().map(|s| history(&mut basis.priors, s)).collect();
    let mut subjects: Vec<Subject> =
        profiles.iter().map(|(profile, result)| basis.subject(profile, result)).collect();
    if let Some(store) = &store {
        let given = args.inventory.as_deref().map(inventory::read).transpose()?;
        for (((profile, _), file), subject) in profiles.iter().zip(&files).zip(&mut subjects) {
            let triage = triage::of(file, profile, store, given.as_deref())?;
            subject.known = Some(Known::of(&triage, &store.exploitation));
        }
    }
    warnings.extend(basis.leftovers());
    let mut result = assess_risk(&service, &subjects, &basis.priors, &basis.settings);
    result.notes = notes;
    result.warnings = warnings;
    write_all(&args.output, cx.color, |format, color| {
        Ok(match format {
            Format::Json => assess_json(&result)?,
            _ => assess_text(&result, args.explain, TextOptions { width: cx.columns(), color }),
        })
    })?;
    result.warnings.iter().for_each(|w| cx.ui.warn(w));
    Ok(if result.warnings.is_empty() { Exit::Fine } else { Exit::Incomplete }.into())
}

/// Takes component history from the store into the priors. What came of it.
fn history(priors: &mut Priors, store: &Store) -> String {
    let at = |text: &str| humantime::parse_rfc3339(text).ok();
    let counted = priors.counted.as_ref().and_then(|c| at(&format!("{}T00:00:00Z", c.date)));
    let imported = store.feeds.iter().filter(|f| f.feed == Feed::Cve5.name());
    let imported = imported.filter_map(|f| at(&f.imported_at)).max();
    let since = counted.zip(imported).and_then(|(from, to)| to.duration_since(from).ok());
    let years = since.map_or(0.0, |d| d.as_secs_f64() / SECONDS_A_YEAR);
    priors.take_counts(&store.vulnerabilities, years)
}

/// Risk of deployments that were measured just now, under the contracts that fit them.
///
/// # Errors
/// When the built-in priors are not sound.
pub(crate) fn of_measured(
    service: &str,
    measured: &[(Profile, DeploymentResult)],
) -> Result<RiskResult> {
    let priors = Priors::built_in()?;
    let mut basis =
        RiskBasis { priors, contracts: Contracts::default(), settings: Settings::default() };
    let subjects: Vec<Subject> = measured.iter().map(|(p, r)| basis.subject(p, r)).collect();
    Ok(assess_risk(service, &subjects, &basis.priors, &basis.settings))
}

/// Everything besides the profiles.
pub(crate) struct RiskBasis {
    pub(crate) priors: Priors,
    contracts: Contracts,
    pub(crate) settings: Settings,
}

#[derive(Default)]
struct Contracts {
    for_all: Option<Contract>,
    by_deployment: Vec<(String, Contract, bool)>,
    warnings: Vec<String>,
}

impl RiskBasis {
    /// Reads priors and contracts.
    ///
    /// # Errors
    /// When one of them is not there or makes no sense as a whole.
    pub(crate) fn read(args: &RiskArgs) -> Result<Self> {
        let priors = match &args.priors {
            None => Priors::built_in()?,
            Some(path) => {
                let text = text_of(path, "priors")?;
                Priors::parse(&text, &path.display().to_string())
                    .map_err(|e| UsageError(e.to_string()))?
            }
        };
        let mut contracts = Contracts::default();
        for arg in &args.contract {
            contracts.add(arg)?;
        }
        let settings = Settings { seed: args.seed, draws: args.draws, ..Settings::default() };
        Ok(Self { priors, contracts, settings })
    }

    /// A recording under its contract.
    pub(crate) fn subject(&mut self, profile: &Profile, result: &DeploymentResult) -> Subject {
        let manifest = &profile.manifest;
        let own = self.contracts.by_deployment.iter_mut().find(|c| c.0 == manifest.deployment);
        let contract = match own {
            Some((_, contract, used)) => {
                *used = true;
                Some(contract.clone())
            }
            None => self.contracts.for_all.clone(),
        };
        let usual =
            || Contract::preset(Contract::usual_for(&manifest.deployment, &manifest.layers));
        let contract = contract.or_else(usual).unwrap_or_else(|| Contract::silent("as recorded"));
        Subject::measured(profile, result, &contract, &self.priors)
    }

    /// What was left out of the contracts, and contracts of deployments that are not there.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let unused = self.contracts.by_deployment.iter().filter(|(.., used)| !used);
        let unused = unused.map(|(name, ..)| {
            format!("a contract was given for `{name}`, which is not among the profiles")
        });
        self.contracts.warnings.iter().cloned().chain(unused).collect()
    }
}

impl Contracts {
    fn add(&mut self, arg: &str) -> Result<()> {
        let (deployment, which) = match arg.split_once('=') {
            Some((name, which)) if !name.contains('/') => (Some(name), which),
            _ => (None, arg),
        };
        let contract = match Contract::preset(which) {
            Some(preset) => preset,
            None => {
                let path = Path::new(which);
                if !path.is_file() {
                    let names: Vec<&str> = PRESETS.iter().map(|(n, _)| *n).collect();
                    let names = names.join(", ");
                    return Err(UsageError(format!(
                        "there is no contract `{which}`: neither a file nor one of {names}"
                    ))
                    .into());
                }
                let text = text_of(path, "contract")?;
                let (contract, problems) =
                    Contract::parse(&text, which).map_err(|e| UsageError(e.to_string()))?;
                self.warnings.extend(problems.iter().map(ToString::to_string));
                contract
            }
        };
        match deployment {
            Some(name) => self.by_deployment.push((name.to_owned(), contract, false)),
            None => self.for_all = Some(contract),
        }
        Ok(())
    }
}

/// Reads a text that somebody wrote.
pub(crate) fn text_of(path: &Path, what: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the {what} {}", path.display()))
}

/// Profiles that can be assessed, and why others cannot.
pub(crate) struct Recordings {
    pub(crate) profiles: Vec<(Profile, DeploymentResult)>,
    /// Their files.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) warnings: Vec<String>,
}

/// Reads profiles; one that is damaged or empty does not stand in the others' way.
///
/// # Errors
/// When none of them can be assessed.
pub(crate) fn read_profiles(files: &[PathBuf]) -> Result<Recordings> {
    let (mut profiles, mut warnings): (Vec<(Profile, DeploymentResult)>, Vec<String>) =
        (Vec::new(), Vec::new());
    let mut read_from = Vec::new();
    for path in expand(files)? {
        let read = file::read(&path)
            .map_err(anyhow::Error::from)
            .and_then(|p| assessed(&p, &path).map(|r| (p, r)));
        match read {
            Ok((mut profile, mut result)) => {
                if profiles.iter().any(|(p, _)| p.manifest.deployment == result.name) {
                    // A repeat of a deployment, or the same one measured elsewhere.
                    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned());
                    let name = stem.unwrap_or_else(|| path.display().to_string());
                    profile.manifest.deployment.clone_from(&name);
                    result.name = name;
                }
                profiles.push((profile, result));
                read_from.push(path);
            }
            Err(e) => warnings.push(crate::exit::message(&e)),
        }
    }
    if profiles.is_empty() {
        bail!("no profile can be assessed: {}", warnings.join("; "));
    }
    Ok(Recordings { profiles, files: read_from, warnings })
}

fn assessed(profile: &Profile, path: &Path) -> Result<DeploymentResult> {
    altaz_assess::assess(profile, &Options::default())
        .with_context(|| format!("cannot assess {}", path.display()))
}

/// Directories become the profiles in them, first recordings only, in the order of their names.
fn expand(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in files {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("cannot read the directory {}", path.display()))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "altaz") && !is_repeat(p))
            .collect();
        if found.is_empty() {
            bail!(
                "there is no profile (NAME.altaz) in {}; record one, or run altaz compare",
                path.display()
            );
        }
        found.sort();
        all.extend(found);
    }
    Ok(all)
}

/// `runc.2.altaz` is the second recording of `runc`.
fn is_repeat(path: &Path) -> bool {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    stem.rsplit_once('.')
        .is_some_and(|(_, n)| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
}

/// The service that all profiles are of, under one load.
pub(crate) fn same_service(profiles: &[(Profile, DeploymentResult)]) -> Result<String> {
    let mut based = profiles.iter().filter_map(|(_, r)| Some((r.name.as_str(), r.basis.as_ref()?)));
    let Some(first) = based.next() else { return Ok(String::new()) };
    for other in based {
        altaz_assess::comparable(first, other)?;
    }
    Ok(first.1.service.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_the_first_recordings_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["runc.altaz", "runc.2.altaz", "a.altaz", "compare.json"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = expand(&[dir.path().to_owned()]).unwrap();
        let names: Vec<_> =
            found.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.altaz", "runc.altaz"]);
        let empty = tempfile::tempdir().unwrap();
        let e = expand(&[empty.path().to_owned()]).unwrap_err().to_string();
        assert!(e.contains("no profile (NAME.altaz)"), "{e}");
    }

    #[test]
    fn an_unknown_preset_is_a_usage_error_that_lists_the_known_ones() {
        let mut contracts = Contracts::default();
        let e = contracts.add("runc=no-such").unwrap_err();
        assert_eq!(crate::exit::code_of(&e), Exit::Usage);
        assert!(e.to_string().contains("`no-such`") && e.to_string().contains("iaas-vm"), "{e}");
        contracts.add("runc=iaas-vm").unwrap();
        contracts.add("bare-metal").unwrap();
        assert_eq!(contracts.by_deployment[0].0, "runc");
        assert_eq!(contracts.for_all.unwrap().title, "bare metal");
    }
}
