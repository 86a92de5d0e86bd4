//! `runc`: an ordinary container under the default confinement of Docker and Podman.

use std::path::Path;
use std::time::Duration;

use altaz_profile::model::{Layer, Owner};
use altaz_profile::rules::Machine;

use super::container::{self, Runtime};
use super::{need_path, need_program};
use crate::layers::{self, Sharing};
use crate::{
    DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable, cgroup,
};

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
        let mut layers = layers::tenant_image();
        layers.push(layers::layer(Layer::HostService, Owner::Provider, Sharing::PerTenant));
        layers.push(layers::layer(Layer::HostKernel, Owner::Provider, Sharing::Shared));
        let mut rules = vec![layers::agent_rule()];
        rules.push(layers::kernel_rule(Machine::Host, Layer::HostKernel));
        rules.extend(layers::service_rules(spec));
        // runc, what it loads, and what joins the container to the network.
        rules.push(layers::host_binary("*", Some(Layer::HostService)));
        rules.push(layers::anonymous_rule(Machine::Host, Layer::App));
        Description {
            name: self.name().into(),
            layers,
            boundaries: vec![layers::container_syscalls(Layer::App, Layer::HostKernel)],
            rules,
            split_binaries: Vec::new(),
            blind_spots: layers::common_blind_spots(),
            notes: Vec::new(),
        }
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        need_program("ip", "iproute2")?;
        need_program("runc", "runc")?;
        need_path(
            &Path::new(cgroup::ROOT).join("cgroup.controllers"),
            "the cgroup hierarchy (version 2)",
            "mount it in the lab",
        )?;
        need_path(&lab.image_disk, "the service's disk", "attach a service image to the lab")
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let state = lab.run.join("runc");
        let runtime = Runtime {
            command: vec!["runc".into(), "--root".into(), state.display().to_string()],
            hide_in_netns: None,
            cgroup: None,
            start_timeout: Duration::from_secs(60),
            notes: Vec::new(),
        };
        container::start(lab, spec, runtime)
    }
}
