//! Writes the page of claims from the profiles of a directory that `altaz compare` filled.
//!
//!     cargo run --release -p altaz-assess --example claims -- DIR PAGE.md

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use altaz_assess::claims::{self, Claim, Figure, Measured};
use altaz_assess::{Options, assess, basis, comparable};
use altaz_profile::file;
use altaz_profile::results::Basis;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "give the directory of profiles and the page to write";
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (dir, page) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let (measured, basis) = read(&dir)?;
    let text = render(&measured, &basis, &claims::claims(&measured));
    let written = page.with_extension("md.new");
    std::fs::write(&written, text)?;
    std::fs::rename(&written, &page)?;
    Ok(())
}

/// Every profile of the directory by deployment; repeats are named `NAME.2.altaz`, and come after the
/// first.
fn read(dir: &Path) -> Result<(Vec<Measured>, Basis), Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|e| format!("cannot read {}: {e}; run make demo first", dir.display()))?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "altaz"))
        .collect();
    paths.sort_by_key(|p| (p.as_os_str().len(), p.clone()));
    let mut by_name: BTreeMap<String, Measured> = BTreeMap::new();
    let mut first: Option<(String, Basis)> = None;
    for path in &paths {
        let profile = file::read(path)?;
        let own = basis(&profile.manifest);
        let name = path.display().to_string();
        match &first {
            Some((other, its)) => comparable((other, its), (&name, &own))?,
            None => first = Some((name, own)),
        }
        let deployment = profile.manifest.deployment.clone();
        let result = assess(&profile, &Options::default())?;
        by_name
            .entry(deployment.clone())
            .or_insert_with(|| Measured { name: deployment, runs: Vec::new() })
            .runs
            .push(result);
    }
    let (_, basis) =
        first.ok_or_else(|| format!("{} holds no profile; run make demo first", dir.display()))?;
    Ok((by_name.into_values().collect(), basis))
}

fn render(measured: &[Measured], basis: &Basis, claims: &[Claim]) -> String {
    let runs = |m: &Measured| format!("{} ({})", m.name, m.runs.len());
    let mut out = format!(
        "# Claims, tested\n\n\
         Written by `make claims` from the profiles that `make demo` (or `altaz compare --repeat N`) \
         recorded; do not edit. The claims are those of James Bottomley's essay \"Containers and Cloud \
         Security\" (2018), in our words.\n\n\
         Service `{}`, load `{}`, instrument `{}`, phase `{}`, unit {}. Deployments (recordings of \
         each): {}.\n\n\
         Figures are means over the recordings of a deployment with the smallest and largest of them; \
         one recording has no interval, and a verdict on it is a verdict on one run. Equal: intervals \
         overlap, or no more than {:.0} % apart. Everything is about this load: what it traversed and \
         what it might have called, never \"all code\". That size stands for risk is an assumption of \
         the essay, and not tested.\n\n",
        basis.service,
        basis.load,
        basis.instrument,
        basis.phase,
        basis.unit,
        measured.iter().map(runs).collect::<Vec<_>>().join(", "),
        claims::EQUAL * 100.0,
    );
    out.push_str("| claim | measured | verdict |\n|---|---|---|\n");
    for c in claims {
        let figures: Vec<String> = c.figures.iter().map(figure).collect();
        let measured = if figures.is_empty() { "–".into() } else { figures.join("<br>") };
        // Writing to a string does not fail.
        let _ = writeln!(out, "| {} | {measured} | **{}** |", c.claim, c.verdict);
    }
    out
}

fn figure(f: &Figure) -> String {
    let number = |x: f64| if f.unit == "share" { format!("{x:.3}") } else { format!("{x:.0}") };
    let mean = f.mean().map_or("–".into(), number);
    let interval = f
        .interval()
        .map_or(String::new(), |(low, high)| format!(" [{} to {}]", number(low), number(high)));
    let unit = if f.unit == "share" { String::new() } else { format!(" {}", f.unit) };
    format!("{}: {mean}{interval}{unit}", f.what)
}
