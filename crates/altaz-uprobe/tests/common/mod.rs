//! What tests with real probes share: programs to probe, private copies of installed ones, and arming them.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "each test uses a part; tests run programs directly and fail by panicking"
)]

use altaz_bpf::{ActiveFilter, TaskFilter};
use altaz_symbols::Binary;
use altaz_uprobe::{Armed, Method, Options, Points, ProbedFile, SelfTest, probe_points};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The self-test of this kernel, run once for all tests of a file.
pub fn proof() -> &'static SelfTest {
    static PROOF: OnceLock<SelfTest> = OnceLock::new();
    PROOF.get_or_init(|| SelfTest::run(Path::new("/sys")).unwrap())
}

/// tracefs, mounted if it is not.
pub fn tracefs() -> &'static Path {
    static MOUNTED: OnceLock<()> = OnceLock::new();
    let path = Path::new("/sys/kernel/tracing");
    MOUNTED.get_or_init(|| {
        if !path.join("events").exists() {
            run(Command::new("mount").args(["-t", "tracefs", "tracefs"]).arg(path));
        }
    });
    path
}

/// Lets the children of this process pass.
pub fn own_children() -> ActiveFilter {
    let filter = TaskFilter::Tgids(vec![std::process::id()]);
    ActiveFilter::start(tracefs(), Path::new("/proc"), &filter).unwrap()
}

/// A file with what was found in it.
pub struct Target {
    pub binary: Binary,
    pub points: Points,
    pub armed: Armed,
}

impl Target {
    /// Probes all functions of a file.
    pub fn arm(path: &Path, filter: &ActiveFilter, stepped: bool) -> Self {
        Self::arm_by(Method::best(), path, filter, stepped)
    }

    /// Probes all functions of a file by a given method.
    pub fn arm_by(method: Method, path: &Path, filter: &ActiveFilter, stepped: bool) -> Self {
        Self::arm_with(method, None, path, filter, stepped)
    }

    /// Probes all functions of a file in one process alone.
    pub fn arm_in(process: u32, path: &Path, filter: &ActiveFilter) -> Self {
        Self::arm_with(Method::best(), Some(process), path, filter, true)
    }

    fn arm_with(
        method: Method,
        process: Option<u32>,
        path: &Path,
        filter: &ActiveFilter,
        stepped: bool,
    ) -> Self {
        let file = ProbedFile::open(path).unwrap();
        let bytes = file.read().unwrap();
        let binary = Binary::parse(&bytes).unwrap();
        let allowed = proof().allowed().clone();
        let options = Options { allowed, stepped, excluded: vec![] };
        let points = probe_points(&bytes, &binary, &options);
        let sys = Path::new("/sys");
        let armed = Armed::attach_by(method, file, &points, proof(), filter, process, sys);
        let armed = armed.unwrap();
        println!(
            "{}: {} of {} functions probed in {:?}",
            path.display(),
            armed.armed(),
            binary.functions.len(),
            armed.took()
        );
        let mut reasons: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for out in points.left_out.iter().chain(armed.left_out()) {
            let entry = reasons.entry(out.reason.to_string()).or_default();
            (entry.0, entry.1) = (entry.0 + 1, entry.1 + out.size);
        }
        println!("  left out (functions, bytes): {reasons:?}");
        Self { binary, points, armed }
    }

    /// Names of functions that were hit, with their counts.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let name = |index: u32| self.binary.functions.get(index as usize).unwrap().name.clone();
        self.armed.hits().map(|hit| (name(hit.function), hit.count)).collect()
    }

    /// Index of a function by its name.
    pub fn index(&self, name: &str) -> u32 {
        let at = self.binary.functions.iter().position(|f| f.name == name);
        u32::try_from(at.unwrap_or_else(|| panic!("no function {name}"))).unwrap()
    }
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {error}", output.status);
    output
}

/// Compiles C; answers where the program is.
pub fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let input = dir.join(format!("{name}.c"));
    let output = dir.join(name);
    std::fs::write(&input, source).unwrap();
    run(Command::new("cc").arg("-o").arg(&output).arg(&input).args(flags));
    output
}

/// A copy of an installed program and of the libraries it is linked with: probes on them touch nobody else.
pub struct PrivateCopy {
    dir: tempfile::TempDir,
    program: PathBuf,
    loader: PathBuf,
    pub files: Vec<PathBuf>,
}

impl PrivateCopy {
    pub fn of(program: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copy = |path: &Path| {
            let to = dir.path().join(path.file_name().unwrap());
            std::fs::copy(path, &to).unwrap();
            to
        };
        let text = run(Command::new("ldd").arg(program));
        let text = String::from_utf8(text.stdout).unwrap();
        let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
        let mut files: Vec<PathBuf> = paths.map(|path| copy(Path::new(path))).collect();
        let loader =
            files.iter().find(|f| f.to_string_lossy().contains("ld-linux")).unwrap().clone();
        let program = copy(Path::new(program));
        files.push(program.clone());
        Self { dir, program, loader, files }
    }

    /// Starts the copy with the copies of its libraries.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.loader);
        command.arg("--library-path").arg(self.dir.path()).arg(&self.program);
        command
    }

    /// Probes the program and its libraries; the loader only if it is among what `keep` says.
    pub fn arm(&self, filter: &ActiveFilter, stepped: bool) -> Vec<Target> {
        self.files.iter().map(|file| Target::arm(file, filter, stepped)).collect()
    }
}
