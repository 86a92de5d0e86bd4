//! `make replicate`: the published table of unique host-kernel functions on the same work, measured with
//! altaz's instruments and with the published method, each beside the published figures.
//!
//! For each service and deployment one lab boots. The exact figures come from the profiles that
//! `altaz compare` left in `target/replicate/SERVICE` (see `scripts/replicate.sh`); here the live
//! instrument records the running deployment under the same load, and then the published method does:
//! function_graph on the core to which the deployment is pinned, interrupts dropped, default buffer.
//! What fails for one deployment is a line of the page; the rest goes on.
//!
//! Writes `docs/replication.md` and `target/replicate/replication.json`. `ALTAZ_REPLICATE_SERVICES`
//! (`node,redis,tornado`) and `ALTAZ_REPLICATE_DEPLOYMENTS` (`runc,runsc-ptrace,qemu-microvm`) take fewer;
//! what was not run is said on the page.

mod page;
mod run;

use altaz::compare::images::ImageCode;
use altaz::compare::session::Parts;
use altaz_e2e::lab::{Result, lab_image, service, target_dir};
use altaz_e2e::repository;
use altaz_lab::{Interrupt, NetNs};

use page::Row;

fn main() -> Result<()> {
    let target = target_dir()?;
    let list = |name: &str, default: &str| -> Vec<String> {
        let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
        text.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
    };
    let services = list("ALTAZ_REPLICATE_SERVICES", "node,redis,tornado");
    let deployments = list("ALTAZ_REPLICATE_DEPLOYMENTS", "runc,runsc-ptrace,qemu-microvm");
    let altaz = target.join("release/altaz");
    let plugin = target.join("release/libaltaz_plugin.so");
    let say = |step: &str| eprintln!("{step}");
    let lab = lab_image(say)?;
    let mut images = Vec::new();
    for name in &services {
        let path = repository().join(format!("demo/replicate/{name}.toml"));
        let (spec, image) = service(&path, say)?;
        images.push((name.clone(), spec, image));
    }
    altaz_lab::become_unprivileged_root()?;
    let lab_code = ImageCode::open(lab.dir(), &lab.root_tar())?;
    let mut rows = Vec::new();
    for (name, spec, image) in &images {
        let service_code = ImageCode::open(image.dir(), &image.root_tar())?;
        for deployment in &deployments {
            let exact = target.join(format!("replicate/{name}/{deployment}.altaz"));
            let netns = NetNs::new()?;
            let interrupt = Interrupt::new();
            let parts = Parts {
                netns: &netns,
                lab: &lab,
                lab_code: &lab_code,
                services: std::slice::from_ref(image),
                service_code: std::slice::from_ref(&service_code),
                plugin: &plugin,
                interrupt: &interrupt,
            };
            eprintln!("{name} in {deployment}");
            let measured = run::run(&parts, spec, deployment, &altaz);
            if let Err(e) = &measured {
                eprintln!("{name} in {deployment}: {e}");
            }
            rows.push(Row {
                service: name.clone(),
                deployment: deployment.clone(),
                exact: page::exact(&exact),
                measured: measured.map_err(|e| e.to_string()),
            });
            // Kept after each, so that an interrupted run has its page.
            page::write(&rows, &target.join("replicate/replication.json"))?;
        }
    }
    Ok(())
}
