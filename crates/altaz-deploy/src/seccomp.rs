//! The seccomp filter that container engines put on a container by default, and its width.
//!
//! Written from the documented default profile of Docker and Podman for a container with the default
//! capabilities on x86-64. Calls that this list does not name fail with `EPERM`; `clone3` with
//! `ENOSYS`, so that C libraries fall back to `clone`, whose flags a filter can see. Names of 32-bit
//! calls are in the list because the filter also covers the 32-bit ABI.

use serde_json::{Value, json};
use syscalls::x86_64::Sysno;

/// Calls that are allowed whatever their arguments.
const ALLOWED: &str = "
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
chown32 chroot clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range
creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32
fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents
getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32
getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc
kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link
linkat listen listxattr llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap msgctl msgget msgrcv msgsnd
msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2
pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr shmat shmctl
shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair
splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee
tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat
utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Calls that are allowed for some arguments only.
const CONDITIONAL: &[&str] = &["clone", "personality", "socket"];

/// Flags of `clone` that make namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Address family of VM sockets, which would reach past the container's network namespace.
const AF_VSOCK: u64 = 40;
/// Execution domains that programs ask for legitimately.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Capabilities of a container by default.
pub const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

fn allowed() -> impl Iterator<Item = &'static str> {
    ALLOWED.split_ascii_whitespace()
}

/// The `linux.seccomp` object of an OCI runtime configuration.
pub fn default_profile() -> Value {
    let allow_if = |name: &str, args: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args });
    let mut rules = vec![
        json!({ "names": allowed().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW" }),
        allow_if("socket", json!([{ "index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE" }])),
        allow_if(
            "clone",
            json!([{ "index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]),
        ),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
    ];
    for domain in PERSONALITIES {
        rules.push(allow_if(
            "personality",
            json!([{ "index": 0, "value": domain, "op": "SCMP_CMP_EQ" }]),
        ));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// System calls of x86-64, by the table of this version of altaz.
pub fn all_syscalls() -> u32 {
    Sysno::iter().count() as u32
}

/// The system call that an implementation in another language is named after: `EpollWait` is
/// `epoll_wait`, `Readv` is `readv`; `None` when there is none of that name.
pub fn named_after(function: &str) -> Option<&'static str> {
    let plain = function.to_lowercase();
    Sysno::iter().map(|s| s.name()).find(|name| name.replace('_', "") == plain)
}

/// Whether x86-64 has a system call of this name.
pub fn is_syscall(name: &str) -> bool {
    name.parse::<Sysno>().is_ok()
}

/// System calls of x86-64 that the default profile lets through, for at least some arguments.
pub fn permitted_syscalls() -> u32 {
    allowed().filter(|name| is_syscall(name)).chain(CONDITIONAL.iter().copied()).count() as u32
}

/// Name of an x86-64 system call; `syscall N` when the table does not know it.
pub fn syscall_name(number: u64) -> String {
    usize::try_from(number)
        .ok()
        .and_then(Sysno::new)
        .map_or_else(|| format!("syscall {number}"), |s| s.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentrys_function_is_named_after_its_system_call_or_helps_others() {
        assert_eq!(named_after("EpollWait"), Some("epoll_wait"));
        assert_eq!(named_after("RtSigaction"), Some("rt_sigaction"));
        assert_eq!(named_after("HandleIOError"), None);
    }

    #[test]
    fn the_default_profile_lets_a_database_work_and_refuses_new_namespaces() {
        let names: Vec<_> = allowed().collect();
        for call in ["read", "fsync", "epoll_wait", "shmget", "futex", "setuid", "chroot"] {
            assert!(names.contains(&call), "{call}");
        }
        for call in ["mount", "unshare", "setns", "bpf", "clone3", "io_uring_setup", "reboot"] {
            assert!(!names.contains(&call), "{call}");
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut names: Vec<_> = allowed().chain(CONDITIONAL.iter().copied()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_default_profile_is_narrower_than_no_profile() {
        assert!(permitted_syscalls() > 250);
        assert!(permitted_syscalls() + 40 < all_syscalls());
    }

    #[test]
    fn numbers_have_the_names_of_the_architecture() {
        assert_eq!(syscall_name(0), "read");
        assert_eq!(syscall_name(231), "exit_group");
        assert_eq!(syscall_name(110), "getppid");
        assert_eq!(syscall_name(4_000_000), "syscall 4000000");
    }
}
