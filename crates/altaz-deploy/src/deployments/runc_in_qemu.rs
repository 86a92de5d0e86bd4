//! `runc-in-qemu`: a container nested in a KVM guest of its own, as offers of "managed containers"
//! and of container services on virtual machines have it.
//!
//! The machine is that of `qemu-microvm`, the container that of `runc`: what differs from either is
//! the nesting alone. The kernel that the container's system calls reach is the guest's, so that it is
//! the tenant's again, who thought to have left it to the provider: ownership has moved.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use altaz_profile::model::Owner;

use super::guest;
use super::qemu::{self, Inside, Machine};
use super::{need_program, program};
use crate::exec::Tool;
use crate::layers;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct RuncInQemu;

/// The deployment inside the guest.
const INSIDE: &str = "runc";
/// Programs that it calls there, with the packages that have them.
const PROGRAMS: &[(&str, &str)] = &[("runc", "runc"), ("ip", "iproute2")];
/// The guest's own card, a port of the guest's bridge; the container's interface has the service's.
const CARD: &str = "02:00:00:77:00:11";
/// Size of the guest's root: its tools, and what the container writes.
const ROOT_SIZE: &str = "1G";

impl Deployment for RuncInQemu {
    fn name(&self) -> &'static str {
        "runc-in-qemu"
    }

    fn summary(&self) -> &'static str {
        "container (runc) nested in a KVM guest of its tenant's (QEMU's minimal machine)"
    }

    fn patience(&self) -> u32 {
        2
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        Description {
            name: self.name().into(),
            layers: guest::container_layers(Owner::Tenant),
            boundaries: guest::container_boundaries(),
            rules: guest::container_rules(spec),
            split_binaries: Vec::new(),
            blind_spots: layers::common_blind_spots(),
            notes: vec![
                "the tenant who left the kernel to the provider by taking a container has it back: \
                 guest kernel and container runtime are the tenant's to patch"
                    .into(),
            ],
        }
    }

    fn runs(&self, _: &ServiceSpec) -> Result<(), Unavailable> {
        Ok(())
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        for (name, package) in PROGRAMS {
            need_program(name, package)?;
        }
        need_program("mke2fs", "e2fsprogs")?;
        qemu::available(lab)
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let disk = root_disk(lab)?;
        let pod = 1..=spec.processes.len() as u32;
        let images: Vec<PathBuf> = pod.map(|n| lab.of_process(n).image_disk).collect();
        let inside = Inside {
            deployment: Some(INSIDE),
            own_disk: Some(&disk),
            more_images: &images,
            mac: Some(CARD),
        };
        qemu::start(lab, spec, Machine::Microvm, &inside)
    }
}

/// A disk with the programs that run in the guest besides the service, and room for what the
/// container writes.
fn root_disk(lab: &LabEnv) -> Result<PathBuf, DeployError> {
    let (tree, disk) = (lab.scratch.join("guest-root"), lab.scratch.join("guest-root.img"));
    let made = |what: &str| format!("{what} for the guest's root in {}", tree.display());
    for left in [&tree, &disk] {
        let _ = fs::remove_dir_all(left);
        let _ = fs::remove_file(left);
    }
    for dir in ["dev", "proc", "sys", "run", "tmp", "etc", "var/lib", "root"] {
        fs::create_dir_all(tree.join(dir))
            .map_err(DeployError::system(made("make a directory")))?;
    }
    for (name, package) in PROGRAMS {
        let program = program(name).ok_or_else(|| {
            DeployError::Service(format!("the lab has no `{name}`; add the package {package}"))
        })?;
        for file in needed(&program)? {
            let to = tree.join(file.strip_prefix("/").unwrap_or(&file));
            to.parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::copy(&file, &to))
                .map_err(DeployError::system(made(&format!("copy {}", file.display()))))?;
        }
    }
    // What ext4 would initialize later, in a thread of the guest's kernel, is done now.
    let (from, to) = (tree.display().to_string(), disk.display().to_string());
    let lazy = "lazy_itable_init=0,lazy_journal_init=0";
    Tool::new(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-E", lazy, "-d", &from, &to, ROOT_SIZE])
        .timeout(Duration::from_secs(60))
        .run()?;
    let _ = fs::remove_dir_all(&tree);
    Ok(disk)
}

/// A program and the files that its loader needs, under the names by which they are asked for.
fn needed(program: &Path) -> Result<Vec<PathBuf>, DeployError> {
    let loader = Path::new(LOADER);
    let words =
        Tool::new([LOADER.to_owned(), "--list".into(), program.display().to_string()]).run()?;
    let mut files = vec![program.to_owned(), loader.to_owned()];
    files.extend(libraries(&String::from_utf8_lossy(&words)));
    Ok(files)
}

/// Where the x86-64 ABI has programs find their loader.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The libraries in what a loader lists. Lines without a path are the kernel's vDSO.
fn libraries(list: &str) -> Vec<PathBuf> {
    list.lines()
        .filter_map(|line| line.split_once("=>"))
        .filter_map(|(_, path)| path.split_whitespace().next())
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_a_loader_s_list() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibseccomp.so.2 => /lib/x86_64-linux-gnu/libseccomp.so.2 (0x00007f)\n\
                    \tlibgone.so => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(list), [Path::new("/lib/x86_64-linux-gnu/libseccomp.so.2")]);
    }
}
