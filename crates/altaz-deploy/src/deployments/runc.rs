//! `runc`: an ordinary container under the default confinement of Docker and Podman.

use super::container;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Runc;

impl Deployment for Runc {
    fn name(&self) -> &'static str {
        "runc"
    }

    fn summary(&self) -> &'static str {
        "container: namespaces, default capabilities and default seccomp profile; the host's kernel"
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        container::describe(self.name(), spec)
    }

    fn runs(&self, _: &ServiceSpec) -> Result<(), Unavailable> {
        Ok(())
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        container::available(lab, "runc", "runc")
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        container::start(lab, spec, |lab| container::ordinary(lab, "runc"))
    }
}
