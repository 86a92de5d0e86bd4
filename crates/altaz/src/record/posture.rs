//! What the processes may do, read once before anything is armed.

use altaz_profile::Posture;
use altaz_target::posture::posture;
use altaz_target::{Roots, Target};

/// Reads posture and system call filters, and writes the permitted widths into the target's
/// boundaries. What cannot be read stays undetermined, and the target's notes say why.
pub(crate) fn read(roots: &Roots, target: &mut Target) -> Vec<Posture> {
    target.read_filters(roots);
    target.processes.iter().filter_map(|p| posture(roots, p)).collect()
}

/// Identity of what runs: the build-id of its first executable, else its path.
pub(crate) fn image_id(target: &Target) -> String {
    let Some(process) = target.processes.iter().find(|p| !p.exe.as_os_str().is_empty()) else {
        return String::new();
    };
    let exe = format!("/proc/{}/exe", process.pid);
    let build_id = std::fs::read(exe)
        .ok()
        .and_then(|bytes| altaz_symbols::elf::Elf::parse(&bytes).ok().and_then(|e| e.build_id()));
    match build_id {
        Some(id) => format!("build-id:{id}"),
        None => format!("path:{}", process.exe.display()),
    }
}
