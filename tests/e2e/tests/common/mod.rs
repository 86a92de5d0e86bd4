//! Recording a service with altaz and looking into the profile, for the tests of what is measured.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeSet;
use std::path::Path;

use altaz_e2e::altaz_in;
use altaz_profile::{Context, Layer, Phase, Profile, Unit};

/// Measures a service in these deployments (names with commas); profiles and results are in `dir`.
pub fn record(spec: &Path, deployments: &str, requests: u32, dir: &Path) {
    let spec = spec.display().to_string();
    let requests = requests.to_string();
    let ran = altaz_in(
        dir,
        &["compare", &spec, "--dir=.", "--deployment", deployments, "--requests", &requests],
    );
    ran.expect(0, &[]);
}

/// The profile of a deployment in this directory.
pub fn profile(dir: &Path, deployment: &str) -> Profile {
    altaz_profile::file::read(&dir.join(format!("{deployment}.altaz"))).unwrap()
}

/// Rows of a layer in a phase that belong to the service: no background.
pub fn own<'a>(
    profile: &'a Profile,
    layer: Layer,
    phase: Phase,
) -> impl Iterator<Item = &'a Unit> + use<'a> {
    profile
        .units
        .iter()
        .filter(move |u| u.layer == layer && u.phase == phase && u.context != Context::Background)
}

/// Names of the functions of a layer that the load executed.
pub fn served(profile: &Profile, layer: Layer) -> BTreeSet<&str> {
    own(profile, layer, Phase::Serve).map(|u| &*u.symbol).collect()
}
