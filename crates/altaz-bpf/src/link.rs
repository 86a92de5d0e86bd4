//! Links: what holds a program to a place in the kernel or in a file. Dropping one detaches.
//!
//! Nothing is pinned, so that a killed altaz leaves nothing: the kernel closes its descriptors.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{BpfError, CAP_SYS_ADMIN};
use crate::event::Event;
use crate::map::cpus;
use crate::program::Program;
use crate::sys::{self, PerfAttr};

/// `PERF_TYPE_TRACEPOINT`.
const TRACEPOINT: u32 = 2;
/// The kernel's `ENOTSUPP`: an instruction that it does not probe.
const ENOTSUPP: i32 = 524;

/// A place in a file to probe, and the number by which its program knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeAt {
    /// Offset in the file, in bytes, of the first byte of an instruction.
    pub offset: u64,
    /// What the program gets from `bpf_get_attach_cookie`.
    pub cookie: u64,
}

/// An attached program, until it is dropped.
#[derive(Debug)]
pub struct Link {
    _fd: OwnedFd,
}

impl Link {
    /// Attaches to a raw tracepoint, by the tracepoint's name without its group.
    ///
    /// # Errors
    /// When the kernel has no such tracepoint or refuses.
    pub fn raw_tracepoint(program: &Program, name: &str) -> Result<Self, BpfError> {
        let c_name = CString::new(name)
            .map_err(|e| BpfError::system(format!("attach to {name:?}"))(e.into()))?;
        match sys::raw_tracepoint_open(&c_name, program.fd()) {
            Ok(fd) => Ok(Self { _fd: fd }),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Err(BpfError::NoEvent {
                event: name.to_owned(),
                needs: "CONFIG_TRACEPOINTS, for system calls CONFIG_FTRACE_SYSCALLS",
            }),
            Err(e) => Err(BpfError::judge(format!("attach to the tracepoint {name}"), "")(e)),
        }
    }

    /// Attaches to a tracepoint through a perf event. The event is opened on one CPU and stays
    /// stopped: a program on a tracepoint runs on all CPUs, for all tasks, all the same.
    ///
    /// A program that returns 0 hides the event from perf events of other users: return 1.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tracepoint(program: &Program, event: &Event) -> Result<Self, BpfError> {
        let what = || format!("attach to the tracepoint {}", event.name);
        let attr = PerfAttr { kind: TRACEPOINT, config: event.id, ..PerfAttr::default() };
        let fd = sys::perf_event_open(attr, None, online_cpu())
            .map_err(BpfError::judge(what(), "CONFIG_PERF_EVENTS"))?;
        sys::perf_set_bpf(fd.as_fd(), program.fd())
            .map_err(BpfError::judge(what(), "CONFIG_BPF_EVENTS"))?;
        Ok(Self { _fd: fd })
    }

    /// Attaches to many places of a file at once, in all processes that map it (Linux 6.6), or in one alone: then no
    /// other process gets a breakpoint into its copy, nor pays for one ([`knows_one_process`]). Takes the places all
    /// or none.
    ///
    /// # Errors
    /// [`BpfError::BadInstruction`] when the kernel will not probe one of the instructions;
    /// [`BpfError::Unsupported`] where such links are unknown.
    pub fn uprobe_multi(
        program: &Program,
        file: &Path,
        probes: &[ProbeAt],
        process: Option<u32>,
    ) -> Result<Self, BpfError> {
        let what = format!("probe {} places of {}", probes.len(), file.display());
        let path = c_path(file)?;
        let offsets: Vec<u64> = probes.iter().map(|p| p.offset).collect();
        let cookies: Vec<u64> = probes.iter().map(|p| p.cookie).collect();
        match sys::link_uprobe_multi(program.fd(), &path, &offsets, &cookies, process) {
            Ok(fd) => Ok(Self { _fd: fd }),
            Err(e) => Err(probe_error(e, what, file, "Linux 6.6 (links of many uprobes)")),
        }
    }

    /// Attaches to one place of a file through the `uprobe` PMU, in all processes that map it
    /// (Linux 5.15). Takes `CAP_SYS_ADMIN` besides; costs a descriptor, and time that grows with their number: the fallback.
    ///
    /// # Errors
    /// As [`Link::uprobe_multi`].
    pub fn uprobe(
        program: &Program,
        pmu: UprobePmu,
        file: &Path,
        probe: ProbeAt,
    ) -> Result<Self, BpfError> {
        let what = format!("probe {} at {:#x}", file.display(), probe.offset);
        let path = c_path(file)?;
        let attr = PerfAttr { kind: pmu.0, config2: probe.offset, ..PerfAttr::default() };
        let event = sys::perf_event_open(attr, Some(&path), online_cpu()).map_err(|e| {
            match e.raw_os_error() {
                // Since Linux 5.8 tracing is CAP_PERFMON's business, but not the `uprobe` PMU.
                Some(libc::EPERM | libc::EACCES) => {
                    BpfError::judge_with(what.clone(), "", &[CAP_SYS_ADMIN])(e)
                }
                _ => probe_error(e, what.clone(), file, "CONFIG_UPROBE_EVENTS"),
            }
        })?;
        // The link holds the event; its descriptor is not needed any more.
        let fd = sys::link_perf_event(program.fd(), event.as_fd(), probe.cookie)
            .map_err(|e| probe_error(e, what, file, "Linux 5.15 (cookies of perf events)"))?;
        Ok(Self { _fd: fd })
    }
}

/// The first kernel on which a link to one process sees all threads of it. Those before take the id for one thread's
/// (`bpf: Fix multi-uprobe PID filtering logic`; the stable kernels that have it too are left out).
const ONE_PROCESS: (u32, u32) = (6, 10);

/// Whether a kernel of this release (`uname -r`) can probe one process alone, all of its threads.
pub fn knows_one_process(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) >= ONE_PROCESS
}

/// Whether the kernel knows links of many uprobes; `program` is one of
/// [`crate::program::Kind::UprobeMulti`], which older kernels load as well.
pub fn knows_uprobe_multi(program: &Program) -> bool {
    // A directory is no file to probe: a kernel that knows the link says so (EBADF), an older one
    // does not know the attach type (EINVAL).
    match sys::link_uprobe_multi(program.fd(), c"/", &[0], &[0], None) {
        Ok(_) => true,
        Err(e) => e.raw_os_error() == Some(libc::EBADF),
    }
}

/// The `uprobe` PMU's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UprobePmu(u32);

impl UprobePmu {
    /// Reads it below `sys` (usually `/sys`).
    ///
    /// # Errors
    /// When the kernel has no such PMU.
    pub fn find(sys: &Path) -> Result<Self, BpfError> {
        std::fs::read_to_string(sys.join("bus/event_source/devices/uprobe/type"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .map(Self)
            .ok_or_else(|| BpfError::Unsupported {
                what: "probe userland functions".to_owned(),
                needs: "CONFIG_UPROBE_EVENTS and CONFIG_PERF_EVENTS, and /sys mounted",
            })
    }
}

fn c_path(path: &Path) -> Result<CString, BpfError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|e| BpfError::system(format!("probe {}", path.display()))(e.into()))
}

fn probe_error(e: io::Error, what: String, file: &Path, needs: &'static str) -> BpfError {
    match e.raw_os_error() {
        Some(ENOTSUPP) => BpfError::BadInstruction { path: file.to_owned(), what },
        Some(libc::ENOENT | libc::EBADF | libc::EISDIR) => BpfError::system(what)(e),
        _ => BpfError::judge(what, needs)(e),
    }
}

/// A CPU that is online; the first one may have been unplugged.
fn online_cpu() -> u32 {
    std::fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|text| cpus(&text)?.first().copied())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_probe_one_process_whole_are_told_by_their_release() {
        for yes in ["6.12.117+deb13-cloud-amd64", "6.10.0", "7.0-rc1", "10.0"] {
            assert!(knows_one_process(yes), "{yes}");
        }
        for no in ["6.9.12", "6.1.0-28-amd64", "5.14.0-503.el9", "", "6", "x.y"] {
            assert!(!knows_one_process(no), "{no}");
        }
    }
}
