//! Real processes, filters and cgroups of this machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/child.rs"]
mod child;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use altaz_target::seccomp::evaluate::{Instruction, Program, Verdict, X86_64, evaluate};
use altaz_target::seccomp::read::{ReadError, filters};
use altaz_target::seccomp::{Mode, width};
use altaz_target::{Request, Role, Roots, posture, resolve};
use child::{Child, end_with, wait_forever};
use nix::sys::signal::Signal;
use syscalls::x86_64::Sysno;

/// An errno that no system call returns by itself.
const REFUSED: u32 = 1234;
const X32_BIT: u32 = 0x4000_0000;

/// Calls whose effect with all arguments -1 is not harmless: they end, block, fork, or act at once.
const NOT_CALLED: &[&str] = &[
    "exit",
    "exit_group",
    "pause",
    "rt_sigreturn",
    "fork",
    "vfork",
    "clone",
    "clone3",
    "sync",
    "vhangup",
    "uretprobe",
    "uprobe",
    "restart_syscall",
    "alarm",
    "munlockall",
    "setsid",
    "sched_yield",
];

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn equal(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: 0x15, jt, jf, k }
}

/// Refuses each fifth call, and each seventh unless the low half of its first argument is -1.
fn filter() -> Program {
    let refuse = op(0x06, 0x0005_0000 | REFUSED);
    let allow = op(0x06, 0x7fff_0000);
    let mut f = vec![op(0x20, 4), equal(X86_64, 1, 0), op(0x06, 0x8000_0000), op(0x20, 0)];
    f.extend([Instruction { code: 0x35, jt: 0, jf: 1, k: X32_BIT }, refuse]);
    for n in 0..600 {
        if n % 5 == 0 {
            f.extend([equal(n, 0, 1), refuse]);
        } else if n % 7 == 0 {
            f.extend([equal(n, 0, 4), op(0x20, 16), equal(u32::MAX, 0, 1), allow, refuse]);
        }
    }
    f.push(allow);
    f
}

fn expected(n: u32) -> Verdict {
    if n.is_multiple_of(5) || n == 1 {
        Verdict::Denied
    } else if n.is_multiple_of(7) {
        Verdict::Conditional
    } else {
        Verdict::Allowed
    }
}

/// A second filter: refuses `write`.
fn second() -> Program {
    vec![op(0x20, 0), equal(1, 0, 1), op(0x06, 0x0005_0000 | REFUSED), op(0x06, 0x7fff_0000)]
}

fn raw(program: &Program) -> Vec<libc::sock_filter> {
    program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
}

/// Installs a filter for the calling thread; nothing is allocated.
fn install(filter: &mut [libc::sock_filter]) {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program before it returns.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program) != 0 {
            libc::_exit(99);
        }
    }
}

/// Memory that a child shares with the test: a result for each call.
fn shared() -> &'static [AtomicI64] {
    let bytes = 600 * size_of::<AtomicI64>();
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping that is never unmapped, zeroed, and large enough for 600 counters.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0);
        assert_ne!(at, libc::MAP_FAILED);
        std::slice::from_raw_parts(at.cast::<AtomicI64>(), 600)
    }
}

#[test]
#[ignore = "needs root"]
fn the_filters_that_a_process_really_has_say_what_it_really_may_call() {
    let (mut one, mut two) = (raw(&filter()), raw(&second()));
    let results = shared();
    let called: Vec<u32> = Sysno::iter()
        .filter(|s| !NOT_CALLED.contains(&s.name()))
        .map(|s| s.id() as u32)
        .filter(|n| *n < 600)
        .collect();
    let child = Child::fork(
        || {
            install(&mut one);
            install(&mut two);
            for n in &called {
                let m = -1_i64;
                // SAFETY: with these arguments each of these calls fails or changes nothing that this
                // child needs.
                let got = unsafe { libc::syscall(i64::from(*n), m, m, m, m, m, m) };
                // SAFETY: the address of this thread's errno.
                let errno = unsafe { *libc::__errno_location() };
                let refused = got == -1 && errno == REFUSED as i32;
                results[*n as usize].store(if refused { 2 } else { 1 }, Ordering::SeqCst);
            }
        },
        wait_forever,
    )
    .ready();
    let w = width(&Roots::here(), child.pid).unwrap();
    assert_eq!((w.mode, w.filters), (Mode::Filter, 2));
    println!("stopped for {:?}", w.stopped);
    assert!(w.stopped < Duration::from_millis(100), "{:?}", w.stopped);
    // It goes on, untraced.
    assert_eq!(child.status("TracerPid"), "0");
    child.becomes('S');
    for s in Sysno::iter() {
        let n = s.id() as u32;
        let verdict = w.calls.get(&n).copied().unwrap_or(Verdict::Denied);
        assert_eq!(verdict, expected(n), "{s}");
    }
    // The kernel agrees, for arguments of -1, which are those that the condition lets through.
    for n in &called {
        let refused = match results[*n as usize].load(Ordering::SeqCst) {
            1 => false,
            2 => true,
            _ => panic!("system call {n} ended the child"),
        };
        assert_eq!(refused, expected(*n) == Verdict::Denied, "system call {n}");
    }
    assert!(called.len() > 330, "{}", called.len());
    assert_eq!(w.x32, 0);
    assert_eq!(w.ia32, 0);
    let entries = w.entries();
    assert_eq!(entries.len(), w.permitted() as usize);
    assert!(entries.iter().any(|e| e.name == "lchown32") || entries.iter().any(|e| e.conditional));
}

#[test]
#[ignore = "needs root"]
fn an_argument_that_the_condition_refuses_is_refused_by_the_kernel_too() {
    let mut f = raw(&filter());
    let results = shared();
    // dup (32), nanosleep (35), getsockname (51), uname (63): 35 is refused anyway, 63 on condition.
    let child = Child::fork(
        || {
            install(&mut f);
            for (i, first) in [-1_i64, 0].into_iter().enumerate() {
                // SAFETY: uname with an address that is not mapped.
                let got = unsafe { libc::syscall(63, first) };
                // SAFETY: the address of this thread's errno.
                let errno = unsafe { *libc::__errno_location() };
                results[i].store(i64::from(got == -1) * i64::from(errno), Ordering::SeqCst);
            }
        },
        wait_forever,
    )
    .ready();
    let read = filters(child.pid).unwrap();
    assert_eq!(read.programs, [filter()]);
    assert_eq!(evaluate(&read.programs, X86_64, 63), Verdict::Conditional);
    assert_eq!(results[0].load(Ordering::SeqCst), i64::from(libc::EFAULT));
    assert_eq!(results[1].load(Ordering::SeqCst), i64::from(REFUSED));
}

#[test]
#[ignore = "needs root"]
fn a_process_without_a_filter_may_call_everything_and_is_not_stopped() {
    let child = Child::fork(|| {}, wait_forever).ready();
    let w = width(&Roots::here(), child.pid).unwrap();
    assert_eq!((w.mode, w.permitted()), (Mode::None, altaz_deploy::seccomp::all_syscalls()));
    assert_eq!(w.stopped, Duration::ZERO);
}

#[test]
#[ignore = "needs root"]
fn a_target_s_boundary_is_as_wide_as_its_widest_process() {
    let (mut one, mut two) = (raw(&filter()), raw(&second()));
    let go = shared();
    let parent = Child::fork(
        || install(&mut two),
        || {
            let parent = std::process::id();
            // SAFETY: forks; both halves only wait.
            if unsafe { libc::fork() } == 0 {
                end_with(parent);
                install(&mut one);
                go[0].store(1, Ordering::SeqCst);
            }
            wait_forever()
        },
    )
    .ready();
    let end = Instant::now() + Duration::from_secs(10);
    while go[0].load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < end, "the child's child does not start");
        std::thread::yield_now();
    }
    let roots = Roots::here();
    let mut t = resolve(&roots, &Request::Pids(vec![parent.pid])).unwrap();
    assert_eq!(t.processes.len(), 2);
    t.read_filters(&roots);
    let b = t.boundaries.iter().find(|b| b.name == "syscall").unwrap();
    // Only `write` is refused by both.
    assert_eq!(b.permitted, Some(altaz_deploy::seccomp::all_syscalls() - 1));
    assert!(b.permitted_entries.iter().all(|e| e.name != "write" && !e.conditional));
    assert!(t.notes.iter().any(|n| n.contains("different filters")), "{:?}", t.notes);
}

#[test]
#[ignore = "needs root"]
fn the_strict_mode_lets_four_calls_through() {
    let (read, write) = nix::unistd::pipe().unwrap();
    use std::os::fd::AsRawFd;
    let fd = read.as_raw_fd();
    let child = Child::fork(
        || {},
        move || {
            let mut byte = 0_u8;
            // SAFETY: strict mode for this child, then a read into its own byte.
            unsafe {
                libc::prctl(libc::PR_SET_SECCOMP, 1);
                libc::read(fd, (&raw mut byte).cast(), 1);
            }
            0
        },
    )
    .ready();
    let end = Instant::now() + Duration::from_secs(5);
    while child.status("Seccomp") != "1" && Instant::now() < end {
        std::thread::yield_now();
    }
    let w = width(&Roots::here(), child.pid).unwrap();
    let names: Vec<String> = w.entries().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["exit", "read", "rt_sigreturn", "write"]);
    drop(write);
}

#[test]
#[ignore = "needs root"]
fn reading_filters_disturbs_neither_a_waiting_nor_a_stopped_nor_a_busy_process() {
    let mut f = raw(&second());
    let (read, write) = nix::unistd::pipe().unwrap();
    use std::os::fd::AsRawFd;
    let fd = read.as_raw_fd();
    let waiting = Child::fork(
        || install(&mut f),
        move || {
            let mut byte = 0_u8;
            // SAFETY: reads into its own byte.
            let got = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
            if got == 1 && byte == 42 { 0 } else { 1 }
        },
    )
    .ready();
    let busy = Child::fork(
        || install(&mut f),
        || loop {
            std::hint::spin_loop();
        },
    )
    .ready();
    let stopped = Child::fork(|| install(&mut f), wait_forever).ready();
    stopped.signal(Signal::SIGSTOP);
    stopped.becomes('T');
    let mut stops = Vec::new();
    for _ in 0..200 {
        for child in [&waiting, &busy, &stopped] {
            let read = filters(child.pid).unwrap();
            assert_eq!(read.programs, [second()]);
            stops.push(read.stopped);
        }
    }
    stops.sort();
    println!("stops: median {:?}, 99 % {:?}, longest {:?}", stops[300], stops[594], stops[599]);
    assert!(stops[300] < Duration::from_millis(20), "{:?}", stops[300]);
    // It goes back to its stop, a moment after it was let go.
    stopped.becomes('T');
    busy.becomes('R');
    nix::unistd::write(&write, &[42]).unwrap();
    let pid = nix::unistd::Pid::from_raw(waiting.pid as i32);
    let ended = nix::sys::wait::waitpid(pid, None).unwrap();
    assert!(matches!(ended, nix::sys::wait::WaitStatus::Exited(_, 0)), "{ended:?}");
}

#[test]
#[ignore = "needs root"]
fn a_thread_that_is_traced_already_or_gone_is_said_to_be() {
    let mut f = raw(&second());
    let child = Child::fork(|| install(&mut f), wait_forever).ready();
    let pid = nix::unistd::Pid::from_raw(child.pid as i32);
    nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty()).unwrap();
    let e = filters(child.pid).unwrap_err();
    let me = std::process::id();
    assert!(matches!(e, ReadError::Traced { by, .. } if by >= me), "{e}");
    let gone = child.pid;
    drop(child);
    assert_eq!(filters(gone), Err(ReadError::Gone(gone)));
}

#[test]
#[ignore = "needs root"]
fn a_process_in_new_namespaces_is_a_container_and_its_posture_says_which() {
    // The child's own child is process 1 of the new namespace.
    let child = Child::fork(
        || {
            // SAFETY: gives this child new namespaces and forks; both halves only wait.
            unsafe {
                libc::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS);
                // From inside the namespace the parent's id is 0.
                if libc::fork() == 0 {
                    end_with(0);
                    wait_forever();
                }
            }
        },
        wait_forever,
    );
    let roots = Roots::here();
    // Once it waits it is sure to end with its parent.
    let waits = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
    };
    let inner = || {
        let all =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.pid)).ok()?;
        all.split_whitespace().next()?.parse::<u32>().ok()
    };
    let end = Instant::now() + Duration::from_secs(5);
    let pid = loop {
        match inner().filter(waits) {
            Some(pid) => break pid,
            None => assert!(Instant::now() < end, "no inner process"),
        }
    };
    let t = resolve(&roots, &Request::Pids(vec![pid])).unwrap();
    assert_eq!((t.deployment.as_str(), t.pids()), ("container", vec![pid]));
    let p = posture(&roots, &t.processes[0]).unwrap();
    assert_eq!(p.namespaces, ["mnt", "pid", "uts"]);
    assert_eq!((p.uid, p.seccomp.as_str(), p.no_new_privs), (0, "none", false));
    assert!(p.capabilities.contains(&"CAP_SYS_ADMIN".to_owned()));
    assert_eq!(p.uid_map, ["0 0 4294967295"]);
}

#[test]
fn a_process_is_followed_from_its_first_child_to_its_end() {
    let roots = Roots::here();
    let go = shared();
    let child = Child::fork(
        || {},
        || {
            while go[0].load(Ordering::SeqCst) == 0 {
                std::hint::spin_loop();
            }
            let parent = std::process::id();
            // SAFETY: forks; both halves only wait.
            if unsafe { libc::fork() } == 0 {
                end_with(parent);
            }
            wait_forever()
        },
    )
    .ready();
    let mut t = resolve(&roots, &Request::Pids(vec![child.pid])).unwrap();
    assert_eq!((t.deployment.as_str(), t.pids()), ("process", vec![child.pid]));
    assert_eq!(t.processes[0].role, Role::App);
    assert_eq!(t.processes[0].exe, std::env::current_exe().unwrap());
    go[0].store(1, Ordering::SeqCst);
    let end = Instant::now() + Duration::from_secs(10);
    let new = loop {
        let changes = t.refresh(&roots).unwrap();
        if let Some(new) = changes.new.first() {
            break new.pid;
        }
        assert!(Instant::now() < end, "the child's child was not found");
    };
    // Process ids begin again when they have come to their end.
    let both = BTreeSet::from([child.pid, new]);
    assert_eq!(BTreeSet::from_iter(t.pids()), both);
    let pid = child.pid;
    drop(child);
    let end = Instant::now() + Duration::from_secs(10);
    let mut gone = BTreeSet::new();
    while gone.len() < 2 {
        gone.extend(t.refresh(&roots).unwrap().gone);
        assert!(Instant::now() < end, "only {gone:?} ended");
    }
    assert_eq!(gone, [pid, new].into());
    assert!(t.processes.is_empty());
}

#[test]
fn resolving_amid_processes_that_come_and_go_never_fails() {
    let roots = Roots::here();
    let stay = Child::fork(|| {}, wait_forever).ready();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                drop(Child::fork(|| {}, || 0));
            }
        });
        for _ in 0..40 {
            let t = resolve(&roots, &Request::Pids(vec![stay.pid]));
            match t {
                Ok(t) => assert_eq!(t.pids(), [stay.pid]),
                Err(e) => {
                    stop.store(true, Ordering::SeqCst);
                    panic!("{e}");
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
#[ignore = "needs root"]
fn a_real_cgroup_has_the_id_by_which_the_kernel_knows_it() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2")).unwrap();
    let root = std::path::Path::new(root.split(' ').nth(1).unwrap());
    let dir = root.join(format!("altaz-target-test-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let child = Child::fork(|| {}, wait_forever).ready();
    std::fs::write(dir.join("cgroup.procs"), child.pid.to_string()).unwrap();
    let t = resolve(&Roots::here(), &Request::Cgroup(dir.clone()));
    let by_pid = resolve(&Roots::here(), &Request::Pids(vec![child.pid]));
    let pid = child.pid;
    drop(child);
    std::fs::remove_dir(&dir).unwrap();
    for t in [t.unwrap(), by_pid.unwrap()] {
        assert_eq!(t.pids(), [pid]);
        assert_eq!(t.outside_cgroup(), Vec::<u32>::new());
        let cgroup = t.cgroup.unwrap();
        assert_eq!((cgroup.path, cgroup.level), (dir.clone(), 1));
        assert!(cgroup.id > 0);
    }
}
