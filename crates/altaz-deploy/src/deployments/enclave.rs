//! `enclave`: the whole service in an enclave of a shared host's processor (SGX and its like). A model.
//!
//! The enclave is a partitioning, not another body of code: application, interpreters and libraries
//! lie inside and are the tenant's; the kernel outside is the provider's, shared, and still serves every
//! system call. What changes is what a fallen kernel gains, which no count of functions shows.

use altaz_profile::model::{BlindSpot, Layer, Owner};

use super::physical::{describe, never_run};
use crate::layers::{self, Sharing};
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Enclave;

impl Deployment for Enclave {
    fn name(&self) -> &'static str {
        "enclave"
    }

    fn summary(&self) -> &'static str {
        "model: the whole service in a processor's enclave, system calls served by a shared kernel"
    }

    fn model_of(&self) -> Option<&'static str> {
        Some("process")
    }

    fn describe(&self, _: &ServiceSpec) -> Description {
        let mut layers = layers::tenant_image();
        layers.push(layers::layer(Layer::HostKernel, Owner::Provider, Sharing::Shared));
        let mut description = describe(
            self.name(),
            layers,
            "a model on the measured process: the service inside, the kernel outside; its \
             horizontal figure is what this tenant drives in the shared kernel. A fallen kernel can \
             stop the service and lie to it, but not read or change what is inside, as long as the \
             processor holds; other partitionings (a part of the service inside) move code of \
             application and libraries out of this protection and change no count"
                .into(),
        );
        description.blind_spots = vec![
            BlindSpot {
                layer: Some(Layer::Firmware),
                kind: "model".into(),
                what:
                    "microcode and firmware that keep the enclave and attest it: part of what the \
                       tenant relies on, traversed at every entry, measured by nobody here"
                        .into(),
                bytes: None,
                functions: None,
            },
            BlindSpot {
                layer: Some(Layer::Library),
                kind: "model".into(),
                what: "the layer inside that hands system calls out (a library OS or an SDK) and \
                       checks the kernel's answers"
                    .into(),
                bytes: None,
                functions: None,
            },
        ];
        description
    }

    fn available(&self, _: &LabEnv) -> Result<(), Unavailable> {
        Err(never_run())
    }

    fn start(&self, _: &LabEnv, _: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        Err(DeployError::Service(never_run().to_string()))
    }
}
