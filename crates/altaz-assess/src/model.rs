//! Deployments that are not run: the measured code of another one, under other owners.

use altaz_profile::results::DeploymentResult;
use altaz_profile::{BlindSpot, LayerInfo, Profile};

use crate::Options;
use crate::error::AssessError;
use crate::repeats::assess_repeats;

/// What a model says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Name of the deployment.
    pub deployment: String,
    /// Whose each measured layer would be.
    pub layers: Vec<LayerInfo>,
    /// What nothing measured here stands for.
    pub blind_spots: Vec<BlindSpot>,
    /// What a reader must know, one sentence each.
    pub notes: Vec<String>,
}

/// The figures of a model on measured recordings of another deployment. Functions, bytes and
/// completeness are those that were measured; owner and sharing are the model's.
///
/// # Errors
/// As [`assess_repeats`]; also when the recordings have functions in a layer that the model does not
/// speak of.
pub fn assess_model(
    measured: &[&Profile],
    model: &Model,
    options: &Options,
) -> Result<DeploymentResult, AssessError> {
    let modelled: Vec<Profile> = measured.iter().map(|p| under(p, model)).collect();
    let mut result = assess_repeats(&modelled.iter().collect::<Vec<_>>(), options)?;
    result.model_only = true;
    Ok(result)
}

/// The recording as if its layers were the model's.
fn under(measured: &Profile, model: &Model) -> Profile {
    let mut profile = measured.clone();
    let manifest = &mut profile.manifest;
    let code = |layer| manifest.layers.iter().find(|l| l.name == layer).and_then(|l| l.code);
    let layers =
        model.layers.iter().map(|l| LayerInfo { code: code(l.name), ..l.clone() }).collect();
    manifest.layers = layers;
    manifest.deployment.clone_from(&model.deployment);
    manifest.notes.clone_from(&model.notes);
    manifest.blind_spots.extend(model.blind_spots.iter().cloned());
    // What the measured processes may do says nothing of the model's.
    manifest.posture.clear();
    manifest.reachable.clear();
    profile
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assess;
    use crate::testing::{profile, unit};
    use altaz_profile::{Layer, Owner};

    fn measured() -> Profile {
        let mut p = profile();
        let always: Vec<u32> = (1..=40).collect();
        p.units = vec![
            unit(Layer::App, "/a", 1, &always),
            unit(Layer::HostKernel, "kernel", 1, &always),
            unit(Layer::HostKernel, "kernel", 2, &[7]),
        ];
        p
    }

    /// The measured layers, all of one owner.
    fn all_of(owner: Owner, shared: bool) -> Model {
        let mut layers = profile().manifest.layers;
        for l in &mut layers {
            (l.owner, l.shared) = (owner, shared);
        }
        let notes = vec!["a model".into()];
        Model { deployment: "physical".into(), layers, blind_spots: Vec::new(), notes }
    }

    #[test]
    fn a_machine_of_ones_own_has_the_measured_total_and_no_horizontal_profile() {
        let p = measured();
        let own = assess_model(&[&p], &all_of(Owner::Tenant, false), &Options::default()).unwrap();
        let run = assess(&p, &Options::default()).unwrap();
        let vap = own.vap.unwrap();
        assert!(own.model_only && !run.model_only);
        assert_eq!(vap.functions, run.vap.unwrap().functions);
        assert_eq!(vap.tenant_functions, vap.functions);
        assert_eq!(own.hap.unwrap().exercised_functions, 0);
        assert_eq!(
            (own.name.as_str(), own.notes.as_slice()),
            ("physical", &["a model".into()][..])
        );
        assert_eq!(own.basis, run.basis, "comparable with what was measured");
    }

    #[test]
    fn a_model_that_forgets_a_measured_layer_is_refused() {
        let mut model = all_of(Owner::Tenant, false);
        model.layers.retain(|l| l.name != Layer::HostKernel);
        let e = assess_model(&[&measured()], &model, &Options::default()).unwrap_err();
        assert!(matches!(e, AssessError::UndescribedLayer { layer: Layer::HostKernel, .. }), "{e}");
    }
}
