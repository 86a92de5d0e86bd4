//! The exact instrument: a QEMU TCG plugin that counts every basic block that a machine executes.
//!
//! It sees the machine from outside: kernel code in any context, user code, and nested guests,
//! without any help from them. It does not know what the code *is*; it records where each block's
//! bytes come from (content of its page, or its kernel address) and how often it ran in each window.
//! Naming is the host side's work (`altaz-collect::exact`).
//!
//! Arguments: `fd=N`, the number of an inherited, connected stream socket on which it speaks
//! [`altaz_wire`]. It reads its configuration from there before the guest's first instruction. When
//! the other end goes away, it ends the process: nothing of a killed altaz stays behind.
//!
//! What must never be in here: file access, names of binaries, anything that blocks a vCPU.

mod counters;
mod ffi;
mod table;

mod channel;
mod observe;

use std::ffi::{CStr, c_char, c_int};

/// The plugin API version that this plugin is made for: QEMU refuses it if it is older than what it
/// supports or newer than what it knows.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// Called by QEMU when it loads the plugin; 0 when it can work.
///
/// # Safety
/// `info` and `argv` are as the plugin interface promises: valid for the call, `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: ffi::PluginId,
    info: *const ffi::QemuInfo,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: QEMU passes a valid description.
    let info = unsafe { &*info };
    // SAFETY: `argc` valid C strings.
    let arguments = (0..argc.max(0) as usize).map(|i| unsafe { CStr::from_ptr(*argv.add(i)) });
    let result = parse(arguments)
        .and_then(|fd| check(info).map(|()| fd))
        .and_then(|fd| observe::start(id, info, fd));
    match result {
        Ok(()) => 0,
        Err(message) => {
            eprintln!("altaz-plugin: {message}");
            1
        }
    }
}

fn parse<'a>(arguments: impl Iterator<Item = &'a CStr>) -> Result<c_int, String> {
    let mut fd = None;
    for argument in arguments {
        let text = argument.to_string_lossy();
        match text.split_once('=') {
            Some(("fd", value)) => fd = value.parse().ok(),
            _ => return Err(format!("unknown argument '{text}'; it takes fd=N")),
        }
    }
    fd.ok_or_else(|| "it needs fd=N, the number of an inherited socket".into())
}

fn check(info: &ffi::QemuInfo) -> Result<(), String> {
    // SAFETY: a C string, valid for the call.
    let target = unsafe { CStr::from_ptr(info.target_name) }.to_string_lossy();
    if !info.system_emulation || target != "x86_64" {
        return Err(format!("it observes x86_64 machines, not '{target}' (user mode or another)"));
    }
    if info.max_vcpus as usize > counters::MAX_VCPUS {
        return Err(format!(
            "the machine may have {} vCPUs; at most {} can be observed: use a smaller -smp",
            info.max_vcpus,
            counters::MAX_VCPUS
        ));
    }
    ffi::init().map(|_| ()).map_err(|symbol| {
        format!("this QEMU lacks {}: use QEMU 9.2 or newer", symbol.to_string_lossy())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        assert_eq!(parse([c"fd=12"].into_iter()), Ok(12));
        assert!(parse([].into_iter()).is_err());
        assert!(parse([c"fd=x"].into_iter()).is_err());
        assert!(parse([c"file=/tmp/x"].into_iter()).unwrap_err().contains("file=/tmp/x"));
    }

    #[test]
    fn a_process_that_is_not_qemu_is_refused_by_the_name_of_what_it_lacks() {
        let info = ffi::QemuInfo {
            target_name: c"x86_64".as_ptr(),
            version_min: 2,
            version_cur: 4,
            system_emulation: true,
            smp_vcpus: 2,
            max_vcpus: 2,
        };
        assert!(check(&info).unwrap_err().contains("qemu_plugin_"));
        let other = ffi::QemuInfo { max_vcpus: 64, ..info };
        assert!(check(&other).unwrap_err().contains("64"));
    }
}
