//! The guest whose service is held by a container runtime of its own: a small lab in the guest.
//!
//! The guest has a root of its own with the runtime's programs, a bridge that its network card is a
//! port of, and the service's image on a disk, as the lab itself has. So the deployment that runs in
//! the lab runs here, unchanged.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use altaz_deploy::guest_disk::{GuestJob, SERVICE_ENDED, image_serial};
use altaz_deploy::{LabEnv, Running, deployments};

use super::guest::{Asked, console};
use super::{init, modules};
use crate::{netif, places};

/// Prepares what PID 1 alone can: modules, root, network.
pub(super) fn prepare(job: &GuestJob) -> io::Result<()> {
    modules::load_all(Path::new(places::NESTED_MODULES))?;
    let pod = 0..=job.spec.processes.len() as u32;
    let disk = |n| init::context(init::disk(&image_serial(n)), "the service's disk");
    let images = pod.map(disk).collect::<io::Result<Vec<_>>>()?;
    init::enter_root(&init::context(init::disk("guest"), "the guest's own disk")?)?;
    init::mount_the_rest("altaz-guest")?;
    let name = Path::new(places::SERVICE_DISK);
    name.parent().map_or(Ok(()), fs::create_dir_all)?;
    for (number, image) in images.into_iter().enumerate() {
        std::os::unix::fs::symlink(image, name.with_file_name(places::service_serial(number)))?;
    }
    init::context(network(job), "setting up the guest's bridge")
}

/// The bridge has no address: the guest itself takes no part in the service's traffic.
fn network(job: &GuestJob) -> io::Result<()> {
    init::no_ipv6();
    netif::set_up("lo")?;
    netif::add_bridge(places::BRIDGE)?;
    netif::add_to_bridge(places::BRIDGE, &job.interface)?;
    netif::set_up(&job.interface)?;
    netif::set_up(places::BRIDGE)
}

/// The service from its start to its end.
pub(super) fn work(job: &GuestJob, deployment: &str, asked: &Receiver<Asked>) -> io::Result<()> {
    let mut console = console()?;
    let mut running = match start(job, deployment) {
        Ok(running) => running,
        Err(why) => {
            writeln!(console, "\n{SERVICE_ENDED}{}", why.replace('\n', "; "))?;
            asked.iter().find(|word| *word == Asked::Stop);
            return Ok(());
        }
    };
    while let Ok(Asked::Status) = asked.recv() {
        if let Some(how) = running.exited() {
            writeln!(console, "\n{SERVICE_ENDED}{}", how.replace('\n', "; "))?;
        }
    }
    let grace = Duration::from_secs(job.spec.service.stop_timeout_s.into());
    if let Err(e) = running.stop(grace) {
        writeln!(console, "\n{e}")?;
    }
    writeln!(console, "\n{}", running.log_tail())
}

fn start(job: &GuestJob, name: &str) -> Result<Box<dyn Running>, String> {
    let chosen =
        deployments::by_name(name).ok_or_else(|| format!("there is no deployment {name}"))?;
    let env = LabEnv {
        service_ip: job.ip.clone(),
        prefix: job.prefix,
        gateway: job.gateway.clone(),
        service_mac: job.mac.clone(),
        ..LabEnv::default()
    };
    for dir in [&env.run, &env.scratch] {
        fs::create_dir_all(dir).map_err(|e| format!("making {}: {e}", dir.display()))?;
    }
    chosen.available(&env).map_err(|e| e.to_string())?;
    chosen.start(&env, &job.spec).map_err(|e| e.to_string())
}
