//! `physical`: a machine of the tenant's own, alone in its cabinet. A model.
//!
//! The code that a request passes is that of the measured `process`; kernel and userland are the
//! tenant's, and nothing that runs there serves anybody else.

use altaz_profile::model::{Layer, Owner};

use crate::layers::{self, Sharing};
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment on whose measurement both models rest.
const MEASURED: &str = "process";

/// The deployment.
pub(super) struct Physical;

impl Deployment for Physical {
    fn name(&self) -> &'static str {
        "physical"
    }

    fn summary(&self) -> &'static str {
        "model: a machine of the tenant's own, nothing shared (an air gap)"
    }

    fn model_of(&self) -> Option<&'static str> {
        Some(MEASURED)
    }

    fn describe(&self, _: &ServiceSpec) -> Description {
        let mut layers = layers::tenant_image();
        layers.push(layers::layer(Layer::HostKernel, Owner::Tenant, Sharing::PerTenant));
        describe(
            self.name(),
            layers,
            "a model on the measured process: the same code, all of it the tenant's, on \
             a machine without other tenants; attacks through the hardware itself (firmware, a \
             management controller, a shared network) are not in it"
                .into(),
        )
    }

    fn available(&self, _: &LabEnv) -> Result<(), Unavailable> {
        Err(never_run())
    }

    fn start(&self, _: &LabEnv, _: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        Err(DeployError::Service(never_run().to_string()))
    }
}

/// A model's description: no rules and no boundaries of its own, as nothing is recorded by it.
pub(super) fn describe(
    name: &str,
    layers: Vec<altaz_profile::model::LayerInfo>,
    note: String,
) -> Description {
    Description {
        name: name.into(),
        layers,
        boundaries: Vec::new(),
        rules: Vec::new(),
        split_binaries: Vec::new(),
        blind_spots: Vec::new(),
        notes: vec![note],
    }
}

/// Why a model cannot be started.
pub(super) fn never_run() -> Unavailable {
    Unavailable::new(
        "this deployment is a model and is never run",
        format!("measure `{MEASURED}`, on which it rests"),
    )
}
