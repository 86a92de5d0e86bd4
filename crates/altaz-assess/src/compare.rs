//! Which figures may stand side by side.

use altaz_profile::results::{Basis, COMPARE_SCHEMA, CompareResult, DeploymentResult};
use altaz_profile::{Host, Manifest, Phase};

use crate::error::{NotComparable, differences};

/// What must be equal in two recordings before their figures may be compared.
pub fn basis(manifest: &Manifest) -> Basis {
    Basis {
        service: manifest.service.clone(),
        load: manifest.load.as_ref().map_or_else(|| "none".into(), |l| l.description.clone()),
        image_id: manifest.image_id.clone(),
        instrument: manifest.instrument.kind.to_string(),
        phase: Phase::Serve,
        unit: "function".into(),
    }
}

/// Whether the figures of two recordings may be compared.
///
/// # Errors
/// Says everything that differs.
pub fn comparable(left: (&str, &Basis), right: (&str, &Basis)) -> Result<(), NotComparable> {
    let differences = differences(left.1, right.1);
    if differences.is_empty() {
        return Ok(());
    }
    Err(NotComparable { left: left.0.into(), right: right.0.into(), differences })
}

/// Puts deployments side by side.
///
/// # Errors
/// When two available deployments differ in service, load, service image, instrument, phase or
/// unit; the error names both and says what differs.
pub fn compare(
    service: &str,
    host: Host,
    deployments: Vec<DeploymentResult>,
) -> Result<CompareResult, NotComparable> {
    let mut based = deployments.iter().filter_map(|d| Some((d.name.as_str(), d.basis.as_ref()?)));
    let first = based.next();
    if let Some(first) = first {
        based.try_for_each(|other| comparable(first, other))?;
    }
    Ok(CompareResult {
        schema: COMPARE_SCHEMA.into(),
        service: service.into(),
        host,
        basis: first.map(|(_, basis)| basis.clone()),
        deployments,
        risk: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{profile, unit};
    use crate::{Options, assess};
    use altaz_profile::{InstrumentKind, Layer};

    #[test]
    fn recordings_of_another_load_image_and_instrument_are_refused_and_all_three_are_named() {
        let a = basis(&profile().manifest);
        let mut other = profile().manifest;
        other.load = None;
        other.image_id = "another".into();
        other.instrument.kind = InstrumentKind::Live;
        let e = comparable(("runc", &a), ("qemu", &basis(&other))).unwrap_err();
        assert_eq!(
            e.to_string(),
            "the figures of `runc` and `qemu` cannot be compared: load differs (`POST /visit, \
             10/s` against `none`), service image differs (`image` against `another`), instrument \
             differs (`exact` against `live`); record both with the same service image, load and \
             instrument"
        );
    }

    #[test]
    fn an_unavailable_deployment_does_not_stand_in_the_way_of_a_comparison() {
        let mut p = profile();
        p.units = vec![unit(Layer::App, "/a", 1, &[1])];
        let measured = assess(&p, &Options::default()).unwrap();
        let missing = DeploymentResult::unavailable("kata", "no binary `kata-runtime`");
        let host = p.manifest.host.clone();
        let c = compare("web", host, vec![missing, measured.clone(), measured]).unwrap();
        assert_eq!(c.basis, Some(basis(&p.manifest)));
        assert_eq!(c.deployments.len(), 3);
    }

    #[test]
    fn nothing_available_is_a_comparison_without_a_basis() {
        let missing = DeploymentResult::unavailable("kata", "no binary `kata-runtime`");
        let c = compare("web", profile().manifest.host, vec![missing]).unwrap();
        assert_eq!(c.basis, None);
    }
}
