//! Recordings in fake trees: what is refused, and what is written where. A fake tree cannot trace; that is the
//! example's part (`examples/record.rs`), on a kernel that can.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use altaz_ftrace::error::FtraceError;
use altaz_ftrace::instance::{Instance, orphans};
use altaz_ftrace::recorder::{Options, Recorder};
use tempfile::TempDir;

/// A tracefs and a proc with process 77, started at 1234, and this process.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.put("tracing/trace_clock", "[local] mono\n");
        tree.put("tracing/available_tracers", "function_graph function nop\n");
        tree.put("tracing/available_filter_functions", "__do_sys_getppid\n");
        fs::create_dir_all(tree.path("tracing/instances")).unwrap();
        for pid in [77, std::process::id()] {
            let stat =
                format!("{pid} (a ) b) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0\n");
            tree.put(&format!("proc/{pid}/stat"), &stat);
        }
        tree
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn options(&self) -> Options {
        Options { tracefs: self.path("tracing"), proc: self.path("proc"), ..Options::new(vec![77]) }
    }

    fn refused(&self) -> FtraceError {
        Recorder::start(self.options()).unwrap_err()
    }

    fn instances(&self) -> Vec<String> {
        let list = fs::read_dir(self.path("tracing/instances")).unwrap();
        let mut names: Vec<_> =
            list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn without_tracefs_it_says_how_to_mount_it() {
    let tree = Tree::new();
    let options = Options { tracefs: tree.path("nothing"), ..tree.options() };
    let error = Recorder::start(options).unwrap_err();
    assert!(matches!(error, FtraceError::NotMounted { .. }), "{error}");
    assert!(error.to_string().contains("mount -t tracefs"));
}

#[test]
fn a_kernel_without_function_tracer_is_named_with_what_it_has() {
    let tree = Tree::new();
    tree.put("tracing/available_tracers", "blk nop\n");
    let error = tree.refused();
    assert!(matches!(&error, FtraceError::NoFunctionTracer { offers, .. } if offers == "blk nop"));
    assert!(error.to_string().contains("CONFIG_FUNCTION_TRACER"));
    tree.put("tracing/available_tracers", "function nop\n");
    fs::remove_file(tree.path("tracing/available_filter_functions")).unwrap();
    assert!(matches!(tree.refused(), FtraceError::NoFunctionTracer { .. }));
    assert_eq!(tree.instances(), [""; 0], "nothing was made");
}

#[test]
fn function_tracing_that_is_switched_off_is_not_an_empty_recording() {
    let tree = Tree::new();
    tree.put("proc/sys/kernel/ftrace_enabled", "0\n");
    assert!(matches!(tree.refused(), FtraceError::SwitchedOff));
}

#[test]
fn without_a_living_thread_nothing_is_followed_instead_of_everybody() {
    let tree = Tree::new();
    for tids in [vec![], vec![78, 79]] {
        let options = Options { tids, ..tree.options() };
        assert!(matches!(Recorder::start(options), Err(FtraceError::NothingToFollow)));
    }
}

#[test]
fn the_instance_is_named_after_its_owner_and_only_it_is_written_to() {
    let tree = Tree::new();
    let name = format!("altaz-{}-1234", std::process::id());
    let other = tree.path(&format!("tracing/instances/{name}/tracing_on"));
    tree.put(&format!("tracing/instances/{name}/tracing_on"), "1");
    // A fake directory gets no files of itself: the instance cannot be used, and that is told with the file.
    let error = Instance::create(&tree.path("tracing"), &tree.path("proc")).unwrap_err();
    assert!(error.to_string().contains(&format!("{name}-2/tracing_on")), "{error}");
    assert_eq!(tree.instances(), [name], "what was made was removed");
    assert_eq!(fs::read_to_string(other).unwrap(), "1", "not the other recording's");
}

#[test]
fn only_instances_of_dead_owners_are_orphans() {
    let tree = Tree::new();
    for name in [
        "altaz-77-1234",
        "altaz-77-1234-2",
        "altaz-77-999",
        "altaz-78-1234",
        "altaz-78-1234-3",
        "altaz-boundary",
        "altaz-78",
        "altaz-78-x",
        "altaz-78-1-2-3",
        "trace-cmd",
    ] {
        fs::create_dir(tree.path("tracing/instances").join(name)).unwrap();
    }
    // Killed, and its parent has not looked yet.
    tree.put("proc/80/stat", "80 (altaz) Z 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0\n");
    fs::create_dir(tree.path("tracing/instances/altaz-80-1234")).unwrap();
    let found = orphans(&tree.path("tracing"), &tree.path("proc"));
    let names: Vec<_> =
        found.iter().map(|o| (o.pid, o.path.file_name().unwrap().to_str().unwrap())).collect();
    assert_eq!(
        names,
        [
            (77, "altaz-77-999"),
            (78, "altaz-78-1234"),
            (78, "altaz-78-1234-3"),
            (80, "altaz-80-1234")
        ]
    );
    for orphan in found {
        orphan.remove().unwrap();
    }
    assert_eq!(tree.instances().len(), 7);
    assert_eq!(orphans(&tree.path("tracing"), &tree.path("proc")), []);
    assert_eq!(orphans(Path::new("/nonexistent"), Path::new("/proc")), []);
}

#[test]
fn an_orphan_that_is_held_is_reported_with_its_path() {
    let tree = Tree::new();
    tree.put("tracing/instances/altaz-78-1/held", "");
    let orphan = orphans(&tree.path("tracing"), &tree.path("proc")).remove(0);
    let error = orphan.remove().unwrap_err().to_string();
    assert!(error.contains("altaz-78-1: removing the tracing instance"), "{error}");
}

#[test]
#[ignore = "needs root"]
fn this_machines_tracefs_is_used_or_refused_in_words_and_left_as_it_was() {
    let tracefs = Path::new("/sys/kernel/tracing");
    let own = std::process::id();
    match Recorder::start(Options::new(vec![own])) {
        Ok(recorder) => {
            assert!(recorder.calibration().reconciles());
            assert!(recorder.instance().exists());
            recorder.finish().unwrap();
        }
        // Kernels of small virtual machines have no function tracer, or keep it closed.
        Err(error) => assert!(
            matches!(
                error,
                FtraceError::NotMounted { .. }
                    | FtraceError::NoFunctionTracer { .. }
                    | FtraceError::Lockdown { .. }
                    | FtraceError::Refused { .. }
            ),
            "{error}"
        ),
    }
    let left = fs::read_dir(tracefs.join("instances")).into_iter().flatten().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        name.starts_with(&format!("altaz-{own}-"))
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_directory_that_may_not_be_read_is_a_matter_of_permission() {
    let tree = Tree::new();
    let tracing = tree.path("tracing");
    fs::set_permissions(&tracing, fs::Permissions::from_mode(0o000)).unwrap();
    let error = tree.refused();
    fs::set_permissions(&tracing, fs::Permissions::from_mode(0o755)).unwrap();
    // Root passes, and fails later for what a fake tree has not.
    let root = matches!(&error, FtraceError::Io { .. });
    assert!(matches!(error, FtraceError::Permission { .. }) || root, "{error}");
}
