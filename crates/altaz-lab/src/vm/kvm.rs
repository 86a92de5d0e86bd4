//! Whether KVM of this machine really boots a lab: tried, not guessed from a device's presence.

use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{BootOptions, LabVm};
use crate::error::{LabError, Result};
use crate::image::LabImage;
use crate::interrupt::Interrupt;
use crate::netns::NetNs;
use crate::qemu::Accel;

const DEVICE: &str = "/dev/kvm";
/// Much longer than a boot under KVM takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a trial found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmProof {
    /// The lab booted under KVM.
    Boots,
    /// It did not, and why.
    DoesNot(String),
}

static FOUND: Mutex<Option<KvmProof>> = Mutex::new(None);

/// Boots the lab under KVM once in the life of this process and remembers what happened.
///
/// # Errors
/// Only when interrupted, or when QEMU or the agent is missing; a KVM that does not boot is a
/// finding.
pub fn prove_kvm(image: &LabImage, netns: &NetNs, interrupt: &Interrupt) -> Result<KvmProof> {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = found.as_ref() {
        return Ok(known.clone());
    }
    let proof = try_kvm(image, netns, interrupt)?;
    *found = Some(proof.clone());
    Ok(proof)
}

fn try_kvm(image: &LabImage, netns: &NetNs, interrupt: &Interrupt) -> Result<KvmProof> {
    if let Err(e) = File::options().read(true).write(true).open(DEVICE) {
        return Ok(KvmProof::DoesNot(format!("{DEVICE} cannot be opened: {e}")));
    }
    let mut options = BootOptions::new(netns);
    options.accel = Accel::Kvm;
    options.memory_mib = 1024;
    options.timeout = PATIENCE;
    options.interrupt = interrupt.clone();
    match LabVm::boot(image, options) {
        Ok(vm) => {
            // It has proven what it should; how it ends does not matter.
            let _ = vm.poweroff();
            Ok(KvmProof::Boots)
        }
        Err(LabError::Boot { reason, .. }) => {
            Ok(KvmProof::DoesNot(format!("{DEVICE} opens, but the lab does not boot: {reason}")))
        }
        Err(e) => Err(e),
    }
}
