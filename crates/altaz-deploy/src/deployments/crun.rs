//! `crun`: the same container as `runc` makes, made by a runtime in C.
//!
//! Confinement and code while serving are the same by intent; what differs is the code that starts
//! and stops the container.

use super::container;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Crun;

impl Deployment for Crun {
    fn name(&self) -> &'static str {
        "crun"
    }

    fn summary(&self) -> &'static str {
        "the same container made by crun: a runtime in C instead of Go"
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        container::describe(self.name(), spec)
    }

    fn runs(&self, _: &ServiceSpec) -> Result<(), Unavailable> {
        Ok(())
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        container::available(lab, "crun", "crun")
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        container::start(lab, spec, |lab| container::ordinary(lab, "crun"))
    }
}
