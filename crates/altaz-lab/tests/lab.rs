//! The lab itself, booted: what goes in comes back, and nothing is left behind.
//!
//! Each test needs the lab image (built at the first use, from the distribution's archive), a
//! static agent and QEMU: `make test` has them.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use altaz_lab::protocol::{ExitStatus, RunRequest};
use altaz_lab::vm::{KvmProof, Output, prove_kvm};
use altaz_lab::{
    BootOptions, BuildOptions, InputFile, Interrupt, LabError, LabImage, LabVm, NetNs, Recipe,
    cache_dir, places,
};

/// One VM at a time: two would starve each other.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

static IMAGE: LazyLock<LabImage> = LazyLock::new(|| {
    let mut options = BuildOptions {
        cache: cache_dir(),
        progress: &mut |step: &str| eprintln!("{step}"),
        interrupt: Interrupt::new(),
    };
    LabImage::ensure(&Recipe::builtin().unwrap(), &mut options).unwrap()
});

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

fn small(netns: &NetNs) -> BootOptions<'_> {
    let mut options = BootOptions::new(netns);
    options.memory_mib = 1024;
    options
}

fn sh(script: &str) -> RunRequest {
    RunRequest {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("WORD".into(), "from outside".into())],
        cwd: Some("/srv".into()),
        ..RunRequest::default()
    }
}

#[test]
#[ignore = "needs the lab: make test"]
fn a_command_gives_back_its_output_exit_code_and_files() {
    let _alone = alone();
    let netns = NetNs::new().unwrap();
    let mut options = small(&netns);
    options.input_files = vec![InputFile::bytes("/srv/in.txt", 0o640, "given at boot")];
    let vm = LabVm::boot(&IMAGE, options).unwrap();
    assert_eq!(vm.hello().cpus, 2);
    assert_eq!(vm.hello().kernel_release, IMAGE.kernel_release());

    // Output, error output, environment, working directory, exit code.
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = vm
        .run(sh("cat in.txt; echo \" $WORD\"; pwd >&2; exit 7"), MINUTE, &mut |o| match o {
            Output::Stdout(data) => out.extend_from_slice(data),
            Output::Stderr(data) => err.extend_from_slice(data),
        })
        .unwrap();
    assert_eq!(status, ExitStatus::Code(7));
    assert_eq!(String::from_utf8(out).unwrap(), "given at boot from outside\n");
    assert_eq!(String::from_utf8(err).unwrap(), "/srv\n");

    // A signal is no exit code.
    let died = vm.output(["sh", "-c", "kill -9 $$"], MINUTE).unwrap();
    assert_eq!(died.status, ExitStatus::Signal(9));
    assert_eq!(died.status.shell_code(), 137);

    // Files of several chunks, there and back.
    let data: Vec<u8> =
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vm.put_file("/var/tmp/deep/file", 0o600, &data).unwrap();
    assert!(vm.get_file("/var/tmp/deep/file").unwrap() == data);
    let missing = vm.get_file("/no/such/file").unwrap_err().to_string();
    assert!(missing.contains("/no/such/file"), "{missing}");

    // Input, as a stream.
    let mut out = Vec::new();
    let mut request = sh("sort");
    request.stdin = true;
    vm.run_with(
        request,
        MINUTE,
        &mut |o| {
            if let Output::Stdout(data) = o {
                out.extend_from_slice(data);
            }
        },
        |handle| {
            handle.stdin(b"b\na\n", false)?;
            handle.stdin(b"", true)
        },
    )
    .unwrap();
    assert_eq!(out, b"a\nb\n");

    // A script that waits until something was done outside; one that never gets there holds nobody up.
    let done = vm.script_while("echo armed; read line; echo after", MINUTE, || 7).unwrap();
    assert_eq!(done, (7, "after\n".to_owned()));
    let begin = Instant::now();
    for (script, how) in [("echo no; exit 3", "ended with 3"), ("echo no", "without saying")] {
        let error = vm.script_while(script, MINUTE, || panic!("called")).unwrap_err().to_string();
        assert!(error.contains(how) && error.contains("no"), "{error}");
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());

    // A terminal.
    let mut out = Vec::new();
    let mut request = sh("tty; stty size");
    request.tty = Some((33, 99));
    vm.run(request, MINUTE, &mut |o| {
        if let Output::Stdout(data) = o {
            out.extend_from_slice(data);
        }
    })
    .unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "/dev/pts/0\r\n33 99\r\n");

    // A program that does not exist, and one that does not end.
    let missing = vm.output(["altaz-no-such-program"], MINUTE).unwrap_err().to_string();
    assert!(missing.contains("altaz-no-such-program"), "{missing}");
    let begin = Instant::now();
    let hangs = vm.output(["sleep", "600"], Some(Duration::from_secs(1)));
    assert!(matches!(hangs, Err(LabError::Timeout { .. })), "{hangs:?}");
    assert!(begin.elapsed() < Duration::from_secs(20));
    let left = vm.output(["pidof", "sleep"], MINUTE).unwrap();
    assert_eq!(left.status, ExitStatus::Code(1), "the program was killed");

    // What the instruments ask for.
    vm.calibrate(1000).unwrap();
    let symbols = String::from_utf8(vm.kallsyms().unwrap()).unwrap();
    let real = symbols
        .lines()
        .filter(|l| l.ends_with(" tcp_v4_rcv") && !l.starts_with("0000000000000000"));
    assert_eq!(real.count(), 1);
    assert!(symbols.contains("[kvm_amd]"));
    assert!(vm.guest_kallsyms().unwrap().is_none());
    vm.poweroff().unwrap();
}

#[test]
#[ignore = "needs the lab: make test"]
fn the_lab_is_reached_over_its_network_only_from_altaz_s_own_namespace() {
    let _alone = alone();
    let netns = NetNs::new().unwrap();
    let vm = LabVm::boot(&IMAGE, small(&netns)).unwrap();
    let address = (places::LAB_ADDRESS, 6379);
    let started = vm
        .output(
            ["redis-server", "--bind", "10.77.0.2", "--protected-mode", "no", "--daemonize", "yes"],
            MINUTE,
        )
        .unwrap();
    assert_eq!(started.status, ExitStatus::Code(0));
    let ask = move || {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match TcpStream::connect_timeout(&address.into(), Duration::from_secs(2)) {
                Ok(mut stream) => {
                    stream.write_all(b"PING\r\n").unwrap();
                    let mut answer = [0; 7];
                    stream.read_exact(&mut answer).unwrap();
                    return answer;
                }
                Err(e) => assert!(Instant::now() < deadline, "{e}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    assert_eq!(&netns.run(ask), b"+PONG\r\n");
    let in_thread = netns.spawn_thread("asks", ask).unwrap().join().unwrap().unwrap();
    assert_eq!(&in_thread, b"+PONG\r\n");
    let interfaces = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(netns.run(interfaces).contains(places::TAP));
    assert!(!interfaces().contains(places::TAP), "the machine's own network knows nothing of it");
    let second = LabVm::boot(&IMAGE, small(&netns)).err().map(|e| e.to_string());
    assert!(second.is_some_and(|e| e.contains("tap")), "one lab in one network");
}

#[test]
#[ignore = "needs the lab: make test"]
fn a_boot_that_fails_shows_the_end_of_the_console() {
    let _alone = alone();
    let netns = NetNs::new().unwrap();
    let mut options = small(&netns);
    options.kernel_arguments = vec!["rdinit=/no/such/init".into(), "root=/dev/nowhere".into()];
    let error = LabVm::boot(&IMAGE, options).err().unwrap().to_string();
    assert!(error.contains("Kernel panic"), "{error}");
    assert!(error.contains("Unable to mount root fs"), "{error}");

    let mut options = small(&netns);
    options.timeout = Duration::from_millis(300);
    let error = LabVm::boot(&IMAGE, options).err().unwrap().to_string();
    assert!(error.contains("did not answer"), "{error}");

    let mut options = small(&netns);
    options.memory_mib = 40_000_000;
    let error = LabVm::boot(&IMAGE, options).err().unwrap().to_string();
    assert!(error.contains("QEMU ended with code 1") && error.contains("qemu-system"), "{error}");
}

#[test]
#[ignore = "needs the lab: make test"]
fn an_interrupt_ends_a_boot_and_a_running_command_at_once() {
    let _alone = alone();
    let netns = NetNs::new().unwrap();
    for after in [Duration::from_millis(500), Duration::from_secs(30)] {
        let interrupt = Interrupt::new();
        let mut options = small(&netns);
        options.interrupt = interrupt.clone();
        let asker = interrupt.clone();
        std::thread::spawn(move || {
            std::thread::sleep(after);
            asker.set();
        });
        let outcome = LabVm::boot(&IMAGE, options).and_then(|vm| vm.output(["sleep", "600"], None));
        assert!(matches!(outcome, Err(LabError::Interrupted)), "{outcome:?}");
    }
}

const CHILD: &str = "ALTAZ_TEST_BOOTS_AND_WAITS";

#[test]
#[ignore = "needs the lab: make test"]
fn a_killed_altaz_leaves_no_qemu_and_no_file() {
    if std::env::var_os(CHILD).is_some() {
        let netns = NetNs::new().unwrap();
        let vm = LabVm::boot(&IMAGE, small(&netns)).unwrap();
        // Something to write to the copy of the disk.
        vm.put_file("/root/file", 0o600, &[7; 100_000]).unwrap();
        println!("\nqemu {}", vm.pid());
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let _alone = alone();
    let _ = IMAGE.dir();
    let temporary = tempfile::tempdir().unwrap();
    #[allow(clippy::disallowed_methods, reason = "the test itself, as another process")]
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "a_killed_altaz_leaves_no_qemu_and_no_file"])
        .env(CHILD, "1")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let qemu = lines.map_while(Result::ok).find_map(|l| l.strip_prefix("qemu ").map(str::to_owned));
    let qemu = qemu.expect("the child boots its lab");
    assert!(running(&qemu));
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while running(&qemu) {
        assert!(Instant::now() < deadline, "QEMU {qemu} outlived altaz");
        std::thread::sleep(Duration::from_millis(20));
    }
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Whether a process is there and no zombie.
fn running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|s| !s.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

#[test]
#[ignore = "needs the lab: make test"]
fn kvm_is_judged_by_a_boot_and_the_verdict_is_kept() {
    let _alone = alone();
    let netns = NetNs::new().unwrap();
    let first = prove_kvm(&IMAGE, &netns, &Interrupt::new()).unwrap();
    if let KvmProof::DoesNot(reason) = &first {
        assert!(reason.contains("/dev/kvm"), "{reason}");
    }
    let begin = Instant::now();
    assert_eq!(prove_kvm(&IMAGE, &netns, &Interrupt::new()).unwrap(), first);
    assert!(begin.elapsed() < Duration::from_millis(100));
}
