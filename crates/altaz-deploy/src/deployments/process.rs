//! `process`: the service as a plain process of a machine that its tenant has alone.
//!
//! The processes of a pod are plain processes, too, each with its own image as its root, all in one
//! network namespace.
//!
//! Nothing confines it: its root is the image, and its network interface is a port of the bridge as
//! in the other deployments, so that the path of a packet is comparable. Kernel and userland are the
//! tenant's, as on a rented physical machine, and nothing is shared.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use altaz_profile::model::{Layer, Owner};

use super::started::{Beside, ServiceIs, Started};
use super::{need_path, need_program};
use crate::cgroup::{self, Cgroup};
use crate::exec::Child;
use crate::launch::{self, Surroundings};
use crate::layers::{self, Sharing};
use crate::net::Namespace;
use crate::rootfs::{self, Access, Mounts};
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Process;

impl Deployment for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn summary(&self) -> &'static str {
        "plain process of a machine that the tenant has alone; nothing confines it"
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        let mut layers = layers::tenant_image();
        layers.push(layers::layer(Layer::HostKernel, Owner::Tenant, Sharing::PerTenant));
        Description {
            name: self.name().into(),
            layers,
            boundaries: vec![layers::unfiltered_syscalls(Layer::App, Layer::HostKernel)],
            rules: layers::bare_rules(spec),
            split_binaries: Vec::new(),
            blind_spots: layers::common_blind_spots(),
            notes: vec![
                "process is measured as on a machine of the tenant's own: kernel and userland are \
                 the tenant's and nothing is shared, so its horizontal profile is empty (an air gap)"
                    .into(),
            ],
        }
    }

    fn runs(&self, _: &ServiceSpec) -> Result<(), Unavailable> {
        Ok(())
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        need_program("ip", "iproute2")?;
        need_path(&lab.image_disk, "the service's disk", "attach a service image to the lab")
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let mut mounts = Mounts::default();
        let namespace = Namespace::create(lab)?;
        let cgroup = Cgroup::create(cgroup::ROOT.as_ref(), "altaz-process")?;
        let mut run = |lab: &LabEnv, spec: &ServiceSpec| {
            let root = rootfs::image(lab, &mut mounts, Access::ReadWrite)?;
            rootfs::live_in(&root, &mut mounts)?;
            start(lab, spec, root, &namespace, &cgroup)
        };
        let mut beside = Vec::new();
        for (number, process) in (1..).zip(&spec.processes) {
            let lab = lab.of_process(number);
            fs::create_dir_all(&lab.run)
                .map_err(DeployError::system(format!("make {}", lab.run.display())))?;
            let (child, log) = run(&lab, &spec.of_process(process))?;
            let stop_timeout = Duration::from_secs(process.service.stop_timeout_s.into());
            beside.push(Beside { name: process.name.clone(), child, log, stop_timeout });
        }
        let (child, log) = run(lab, spec)?;
        Ok(Box::new(Started {
            child,
            service: ServiceIs::Started,
            log,
            beside,
            neighbour: None,
            shared_host: false,
            notes: Vec::new(),
            cgroup,
            mounts,
            _namespace: namespace,
        }))
    }
}

/// Starts one process in its root.
fn start(
    lab: &LabEnv,
    spec: &ServiceSpec,
    root: PathBuf,
    namespace: &Namespace,
    cgroup: &Cgroup,
) -> Result<(Child, PathBuf), DeployError> {
    let at = Surroundings {
        root,
        netns: Some(namespace.path()),
        cgroup: Some(cgroup.path().to_owned()),
        log: lab.run.join("service.log"),
    };
    Ok((launch::start(spec, &at)?, at.log))
}
