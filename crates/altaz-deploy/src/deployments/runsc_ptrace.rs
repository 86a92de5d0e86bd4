//! `runsc-ptrace`: gVisor on its oldest platform. The sentry runs the application as a tracer does and is
//! told of every system call by the host's kernel: slow, and the platform of the published
//! measurements of gVisor.

use super::gvisor;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct RunscPtrace;

impl Deployment for RunscPtrace {
    fn name(&self) -> &'static str {
        "runsc-ptrace"
    }

    fn summary(&self) -> &'static str {
        "gVisor: a kernel in user space (ptrace platform) with its own network stack"
    }

    fn patience(&self) -> u32 {
        2
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        gvisor::describe(self.name(), spec)
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        gvisor::available(lab)
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        gvisor::start(lab, spec, "ptrace")
    }
}
