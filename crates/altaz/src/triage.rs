//! `altaz triage`: joins imported vulnerabilities with recorded profiles, and writes what they mean
//! as text, JSON or VEX.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::SystemTime;

use altaz_assess::Known;
use altaz_feeds::Store;
use altaz_profile::inventory::Place;
use altaz_profile::results::triage::{
    ProfileTriage, State, TRIAGE_SCHEMA, TriageResult, VexStatus,
};
use altaz_profile::{Profile, file};
use altaz_report::{
    OpenVexForm, TextOptions, VexOptions, cyclonedx, openvex, triage_json, triage_text,
};
use sha2::{Digest, Sha256};

use crate::cli::{Context, TriageArgs};
use crate::exit::Exit;
use crate::output;
use crate::{feeds, inventory};

/// Inventory that is looked for beside a profile.
const BESIDE: &str = "inventory.json";

/// A form that a triage can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriageFormat {
    /// For reading in a terminal.
    Text,
    /// For programs.
    Json,
    /// OpenVEX 0.2.0.
    OpenVex,
    /// OpenVEX before 0.2.0.
    OpenVexEarly,
    /// CycloneDX 1.5 with vulnerabilities.
    CycloneDx,
}

/// One `-o` of `altaz triage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriageOutput {
    /// Form.
    pub format: TriageFormat,
    /// File; `None` is standard output.
    pub file: Option<PathBuf>,
}

impl FromStr for TriageOutput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [
            ("text", TriageFormat::Text),
            ("json", TriageFormat::Json),
            ("openvex", TriageFormat::OpenVex),
            ("openvex-early", TriageFormat::OpenVexEarly),
            ("cyclonedx", TriageFormat::CycloneDx),
        ];
        let (format, file) = output::parse(text, &known)?;
        Ok(Self { format, file })
    }
}

pub(crate) fn run(args: &TriageArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let store = feeds::load(&feeds::directory(args.feeds.as_deref(), cx))?;
    let given = args.inventory.as_deref().map(inventory::read).transpose()?;
    let mut profiles = Vec::new();
    for path in &args.files {
        let profile = file::read(path)?;
        profiles.push(of(path, &profile, &store, given.as_deref())?);
    }
    let result = TriageResult {
        schema: TRIAGE_SCHEMA.into(),
        tool_version: env!("CARGO_PKG_VERSION").into(),
        feeds: store.feeds.clone(),
        profiles,
    };
    write(args, cx, &result)?;
    let traversed = |f: &&altaz_profile::results::triage::Finding| {
        f.state == State::Traversed && f.status == VexStatus::Affected
    };
    let open: usize =
        result.profiles.iter().map(|p| p.findings.iter().filter(traversed).count()).sum();
    if args.check && open > 0 {
        cx.ui.error(&format!("{open} vulnerabilities are open in code that was traversed"));
        return Ok(Exit::NotMet.into());
    }
    Ok(Exit::Fine.into())
}

/// Triage of one profile that was read from `path`.
///
/// # Errors
/// When the inventory beside it cannot be read.
pub(crate) fn of(
    path: &Path,
    profile: &Profile,
    store: &Store,
    given: Option<&[Place]>,
) -> anyhow::Result<ProfileTriage> {
    let known =
        Known { vulnerabilities: &store.vulnerabilities, exploitation: &store.exploitation };
    let places = places(path, &profile.manifest.packages, given)?;
    Ok(altaz_assess::triage(&path.display().to_string(), profile, &places, known))
}

/// What was installed: of the inventory that was named, else of the one beside the profile, else of
/// the profile itself.
fn places(path: &Path, own: &[Place], given: Option<&[Place]>) -> anyhow::Result<Vec<Place>> {
    if let Some(given) = given {
        return Ok(given.to_vec());
    }
    let beside = path.with_file_name(BESIDE);
    if beside.is_file() {
        return inventory::read(&beside);
    }
    Ok(own.to_vec())
}

fn write(args: &TriageArgs, cx: &Context, result: &TriageResult) -> anyhow::Result<()> {
    let json = triage_json(result)?;
    let digest: String =
        Sha256::digest(json.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let timestamp = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let options = VexOptions { timestamp: &timestamp, author: &args.author, digest: &digest };
    let default = [TriageOutput { format: TriageFormat::Text, file: None }];
    let outputs = if args.output.is_empty() { &default[..] } else { &args.output };
    for output in outputs {
        let vex = |form| {
            openvex(result, options, form).ok_or_else(|| {
                anyhow::anyhow!(
                    "OpenVEX has no empty documents, and there is no finding: none of the imported \
                     vulnerabilities is of an installed component"
                )
            })
        };
        let text = match output.format {
            TriageFormat::Text => {
                let color = cx.color && output.file.is_none();
                triage_text(result, args.top, args.all, TextOptions { width: cx.columns(), color })
            }
            TriageFormat::Json => json.clone(),
            TriageFormat::OpenVex => vex(OpenVexForm::V020)?,
            TriageFormat::OpenVexEarly => vex(OpenVexForm::Early)?,
            TriageFormat::CycloneDx => cyclonedx(result, options),
        };
        output::write(output.file.as_deref(), &text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_their_files() {
        let vex: TriageOutput = "openvex=a.json".parse().unwrap();
        assert_eq!((vex.format, vex.file), (TriageFormat::OpenVex, Some("a.json".into())));
        assert!("csaf".parse::<TriageOutput>().unwrap_err().contains("cyclonedx"));
        assert!("json=".parse::<TriageOutput>().is_err());
    }
}
