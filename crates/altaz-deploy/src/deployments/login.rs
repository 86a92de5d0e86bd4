//! `login`: the service as one of several Unix users of a machine, with nothing between them but user
//! ids: the deployment of shared hosting.

use super::account;
use super::started::{ServiceIs, Started};
use crate::launch::{self, Surroundings};
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Login;

impl Deployment for Login {
    fn name(&self) -> &'static str {
        "login"
    }

    fn summary(&self) -> &'static str {
        "one of several Unix users of a machine: the provider's kernel and userland for all"
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        account::describe(self.name(), spec)
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        account::available(lab)
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let machine = account::prepare(lab, spec)?;
        let at = Surroundings {
            root: machine.root.clone(),
            netns: Some(machine.namespace.path()),
            cgroup: Some(machine.cgroup.path().to_owned()),
            log: lab.run.join("service.log"),
        };
        let child = launch::start(&machine.spec, &at)?;
        Ok(Box::new(Started {
            child,
            service: ServiceIs::Started,
            log: at.log,
            beside: Vec::new(),
            neighbour: Some(machine.neighbour),
            shared_host: true,
            notes: Vec::new(),
            cgroup: machine.cgroup,
            mounts: machine.mounts,
            _namespace: machine.namespace,
        }))
    }
}
