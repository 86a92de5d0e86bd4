//! `runsc-systrap`: gVisor on its default platform. The application's system calls trap into the sentry
//! by seccomp and, once seen, through stubs that are written over the call instructions.

use altaz_profile::model::{BlindSpot, Layer};

use super::gvisor;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct RunscSystrap;

impl Deployment for RunscSystrap {
    fn name(&self) -> &'static str {
        "runsc-systrap"
    }

    fn summary(&self) -> &'static str {
        "gVisor: a kernel in user space (systrap platform) with its own network stack"
    }

    fn patience(&self) -> u32 {
        2
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        let mut description = gvisor::describe(self.name(), spec);
        description.blind_spots.push(BlindSpot {
            layer: Some(Layer::SandboxKernel),
            kind: "patched-code".into(),
            what: "systrap replaces the application's system call instructions by jumps to stubs \
                   that it writes at run time"
                .into(),
            bytes: None,
            functions: None,
        });
        description
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        gvisor::available(lab)
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        gvisor::start(lab, spec, "systrap")
    }
}
