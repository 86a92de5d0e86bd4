//! The deployments, one file each, and the table of them.

mod account;
mod cloud_hypervisor;
mod container;
mod crun;
mod enclave;
mod firecracker;
mod guest;
mod gvisor;
mod kata;
mod login;
mod login_hardened;
mod physical;
mod process;
mod qemu;
mod qemu_microvm;
mod runc;
mod runc_in_qemu;
mod runsc_ptrace;
mod runsc_systrap;
mod started;
mod uml;

use std::path::{Path, PathBuf};

use crate::exec::LAB_PATH;
use crate::{Deployment, Unavailable};

const ALL: &[&dyn Deployment] = &[
    &physical::Physical,
    &process::Process,
    &login::Login,
    &login_hardened::LoginHardened,
    &runc::Runc,
    &crun::Crun,
    &runsc_systrap::RunscSystrap,
    &runsc_ptrace::RunscPtrace,
    &qemu::Qemu,
    &qemu_microvm::QemuMicrovm,
    &runc_in_qemu::RuncInQemu,
    &uml::Uml,
    &kata::Kata,
    &firecracker::Firecracker,
    &cloud_hypervisor::CloudHypervisor,
    &enclave::Enclave,
];

/// Every deployment that altaz knows, in the order of reports.
pub fn all() -> &'static [&'static dyn Deployment] {
    ALL
}

/// The deployment of this name.
pub fn by_name(name: &str) -> Option<&'static dyn Deployment> {
    ALL.iter().copied().find(|d| d.name() == name)
}

/// Finds one of the lab's programs.
fn program(name: &str) -> Option<PathBuf> {
    LAB_PATH.split(':').map(|dir| Path::new(dir).join(name)).find(|p| p.is_file())
}

/// Refuses when one of the lab's programs is missing.
fn need_program(name: &str, package: &str) -> Result<PathBuf, Unavailable> {
    program(name).ok_or_else(|| {
        Unavailable::new(
            format!("the lab has no `{name}`"),
            format!("add the package {package} to the lab's recipe and rebuild it"),
        )
    })
}

/// Refuses when a file or device of the lab is missing.
fn need_path(path: &Path, what: &str, remedy: &str) -> Result<(), Unavailable> {
    if path.exists() {
        return Ok(());
    }
    Err(Unavailable::new(format!("{what} {} is not there", path.display()), remedy))
}

/// Refuses when files are missing that no package of the lab's distribution has; says all of them.
fn need_brought(files: &[(&str, &str)]) -> Result<(), Unavailable> {
    let missing: Vec<String> = files
        .iter()
        .filter(|(path, _)| !Path::new(path).exists())
        .map(|(path, what)| format!("{path} ({what})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Unavailable::new(
        format!("the lab has no {}", missing.join(", no ")),
        "no package has them: copy them into the lab by `copy` in a recipe of your own (--recipe), \
         see docs/adding-a-deployment.md",
    ))
}

#[cfg(test)]
mod tests;
