//! The command line: what can be asked, and what every command gets to work with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Parser, Subcommand};

use crate::config::Settings;
use crate::output::Output;
use crate::signals;
use crate::ui::{ColorWhen, Ui};

const EXIT_CODES: &str = "Exit codes: 0 fine; 1 failed (the message says what to do); 2 usage; 3 a \
    budget or check was not met; 4 the measurement is incomplete; 130 interrupted.\n\
    Settings: flag, else ALTAZ_* variable, else altaz.toml in the working directory.";

/// Measures the vertical and horizontal attack profile of a running service, and whose problem each
/// part of them is.
#[derive(Debug, Parser)]
#[command(name = "altaz", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct GlobalArgs {
    /// No progress; warnings and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// When to use colours (NO_COLOR is honoured)
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorWhen,
    /// Settings file [default: altaz.toml, if there is one]
    #[arg(long, global = true, env = "ALTAZ_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where built images are kept [default: ~/.cache/altaz]
    #[arg(long, global = true, env = "ALTAZ_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// QEMU to run the lab with [default: qemu-system-x86_64]
    #[arg(long, global = true, env = "ALTAZ_QEMU", value_name = "PROGRAM")]
    pub qemu: Option<String>,
    /// The exact instrument's plugin [default: beside altaz]
    #[arg(long, global = true, env = "ALTAZ_PLUGIN", value_name = "FILE")]
    pub plugin: Option<PathBuf>,
    /// The lab's agent [default: beside altaz]
    #[arg(long, global = true, env = "ALTAZ_AGENT", value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// Recipe of the lab image [default: the built-in one]
    #[arg(long, global = true, env = "ALTAZ_RECIPE", value_name = "FILE")]
    pub recipe: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say what this machine can measure, and what to do about the rest
    Doctor(DoctorArgs),
    /// Build and use the disposable virtual machine in which services are measured
    Lab(LabArgs),
    /// Measure a service in several deployments and put their profiles side by side
    Compare(CompareArgs),
    /// Print recorded profiles
    Report(ReportArgs),
    /// Say whose problem each part of recorded profiles is, how bad, and how sure that is
    Assess(AssessArgs),
    /// Ask what would be if: owners, patch windows, languages, guards, nesting
    Model(Box<ModelArgs>),
    /// Record the code that a running service traverses on this machine, in place
    Record(RecordArgs),
    /// Say what is new and what is gone between two profiles, and what may be concluded from it
    Diff(DiffArgs),
    /// Put the recordings of a guest's two sides together: made on its host and inside it
    Join(JoinArgs),
    /// Report code and system calls that a service has not used before, as it happens
    Watch(WatchArgs),
    /// Import known vulnerabilities as they are published
    Feeds(FeedsArgs),
    /// Say what known vulnerabilities mean for recorded profiles
    Triage(TriageArgs),
    /// List installed packages and what the kernel was built from, for triage
    Inventory(InventoryArgs),
}

/// Arguments of `altaz feeds`.
#[derive(Debug, Args)]
pub struct FeedsArgs {
    /// Directory of the imported feeds [default: feeds in the cache directory]
    #[arg(long, global = true, env = "ALTAZ_FEEDS", value_name = "DIR")]
    pub feeds: Option<PathBuf>,
    /// What to do with them.
    #[command(subcommand)]
    pub verb: FeedsVerb,
}

/// The commands of `altaz feeds`.
#[derive(Debug, Subcommand)]
pub enum FeedsVerb {
    /// Take feeds from files or directories: CVE JSON 5, .dyad, OSV, RustSec, Debian's tracker, EPSS,
    /// KEV, and lines of functions
    Import(FeedsImportArgs),
    /// Fetch them from their publishers (needs a network and curl)
    Update(FeedsUpdateArgs),
    /// Say what was imported
    List,
}

/// Arguments of `altaz feeds import`.
#[derive(Debug, Args)]
pub struct FeedsImportArgs {
    /// Files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// Arguments of `altaz feeds update`.
#[derive(Debug, Args)]
pub struct FeedsUpdateArgs {
    /// Feeds to fetch, separated by commas; repeatable [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub feed: Vec<String>,
}

/// Arguments of `altaz triage`.
#[derive(Debug, Args)]
pub struct TriageArgs {
    /// Profiles (NAME.altaz)
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Directory of the imported feeds [default: feeds in the cache directory]
    #[arg(long, env = "ALTAZ_FEEDS", value_name = "DIR")]
    pub feeds: Option<PathBuf>,
    /// What was installed [default: inventory.json beside the profile, else the profile's own list]
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// Form of the result, and its file: text, json, openvex, openvex-early or cyclonedx; repeatable
    /// [default: text on standard output]
    #[arg(short, long, value_name = "FORMAT[=FILE]")]
    pub output: Vec<crate::triage::TriageOutput>,
    /// Findings listed per profile, the most urgent first; other forms hold all
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub top: usize,
    /// Also list what is fixed or not present
    #[arg(long)]
    pub all: bool,
    /// Author named in VEX documents
    #[arg(long, default_value = "altaz", value_name = "NAME")]
    pub author: String,
    /// Exit with 3 when a vulnerability is open in code that was traversed
    #[arg(long)]
    pub check: bool,
}

/// Arguments of `altaz inventory`.
#[derive(Debug, Args)]
pub struct InventoryArgs {
    /// Root file system of the host: a directory or a tar archive of one
    #[arg(long, default_value = "/", value_name = "ROOT")]
    pub host: PathBuf,
    /// Root file system of the service, where it has one of its own
    #[arg(long, value_name = "ROOT")]
    pub service: Option<PathBuf>,
    /// Symbols of a boot of the host's kernel [default: /proc/kallsyms for this machine]
    #[arg(long, value_name = "FILE")]
    pub kallsyms: Option<PathBuf>,
    /// Release of the host's kernel [default: this machine's, or the only one of the root]
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// Also list the functions of every module, loaded or not: what proves that code is not there
    #[arg(long)]
    pub functions: bool,
    /// The inventory [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `altaz doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Form of the result, and its file: text or json [default: text on standard output]
    #[arg(short, long, value_name = "FORMAT[=FILE]")]
    pub output: Vec<Output>,
}

/// Arguments of `altaz lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: LabVerb,
}

/// The commands of `altaz lab`.
#[derive(Debug, Subcommand)]
pub enum LabVerb {
    /// Build the image, unless the one of this recipe is there already
    Build,
    /// Boot it, run a command in it, and end with the command's own exit code
    Run(LabRunArgs),
    /// Boot it and open a shell in it
    Shell,
}

/// Arguments of `altaz lab run`.
#[derive(Debug, Args)]
pub struct LabRunArgs {
    /// Copy a file into the lab before the command runs; repeatable
    #[arg(long, value_name = "LOCAL:PATH")]
    pub put: Vec<Transfer>,
    /// Copy a file out of the lab after the command has run, whatever its exit code; repeatable
    #[arg(long, value_name = "PATH:LOCAL")]
    pub get: Vec<Transfer>,
    /// Directory in the lab in which the command runs
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `FROM:TO`, two paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Source.
    pub from: String,
    /// Destination.
    pub to: String,
}

impl std::str::FromStr for Transfer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => {
                Ok(Self { from: from.into(), to: to.into() })
            }
            _ => Err("write two paths with a colon between them".into()),
        }
    }
}

/// Arguments of `altaz report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Profiles (NAME.altaz)
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Form of the result, and its file: text, json or html; repeatable [default: text on standard
    /// output]
    #[arg(short, long, value_name = "FORMAT[=FILE]")]
    pub output: Vec<Output>,
    /// Components listed per layer, the largest first
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub top: usize,
    /// Triage (altaz triage -o json=FILE) whose vulnerabilities a page shows at the functions that
    /// they name
    #[arg(long, value_name = "FILE")]
    pub triage: Option<PathBuf>,
}

/// How risk is assessed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How risk is assessed")]
pub struct RiskArgs {
    /// Who must remediate what: a file, or one of bare-metal, iaas-vm, managed-containers,
    /// serverless-sandbox, container-in-vm; for one deployment with its name before it; repeatable
    /// [default: the one that fits each deployment's layers]
    #[arg(long, value_name = "[DEPLOYMENT=]FILE|PRESET")]
    pub contract: Vec<String>,
    /// Ranges of the assumptions, with their sources [default: the built-in ones]
    #[arg(long, value_name = "FILE")]
    pub priors: Option<PathBuf>,
    /// Seed of the random numbers: the same seed gives the same output
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Draws of each assumption
    #[arg(long, default_value_t = 4000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub draws: u32,
}

/// Arguments of `altaz assess`.
#[derive(Debug, Args)]
pub struct AssessArgs {
    /// Profiles (NAME.altaz), or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
    /// How.
    #[command(flatten)]
    pub risk: RiskArgs,
    /// Directory of imported feeds: known vulnerabilities that are open in traversed code are counted
    /// beside the expected ones, and whole feeds give the components' history
    #[arg(long, value_name = "DIR")]
    pub feeds: Option<PathBuf>,
    /// What was installed [default: inventory.json beside the profile, else the profile's own list]
    #[arg(long, value_name = "FILE", requires = "feeds")]
    pub inventory: Option<PathBuf>,
    /// Print each assumption with its source, and which figure contradicts which statement of the
    /// literature
    #[arg(long)]
    pub explain: bool,
    /// Form of the result, and its file: text or json; repeatable [default: text on standard output]
    #[arg(short, long, value_name = "FORMAT[=FILE]")]
    pub output: Vec<Output>,
}

/// Arguments of `altaz model`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
pub struct ModelArgs {
    /// What to do instead.
    #[command(subcommand)]
    pub verb: Option<ModelVerb>,
    /// Scenarios (NAME.toml) and profiles (NAME.altaz), or directories of them; without a profile the
    /// scenarios' own deployments are put side by side
    #[arg(value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
    /// What is different.
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// How.
    #[command(flatten)]
    pub risk: RiskArgs,
    /// Print each assumption with its source, and how statements of the literature fare
    #[arg(long)]
    pub explain: bool,
    /// Form of the result, and its file: text or json; repeatable [default: text on standard output]
    #[arg(short, long, value_name = "FORMAT[=FILE]")]
    pub output: Vec<Output>,
}

/// The commands of `altaz model`.
#[derive(Debug, Subcommand)]
pub enum ModelVerb {
    /// Print decisions for a tenant and for a provider, with the assumption that decides each
    Advise(AssessArgs),
}

/// What is different, without a scenario file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What is different")]
pub struct ChangeArgs {
    /// Somebody else must remediate a layer: tenant, provider or nobody; repeatable, as all of these
    #[arg(long, value_name = "LAYER=WHO")]
    pub owner: Vec<String>,
    /// Another patch window of a layer, or of all layers of the tenant or provider
    #[arg(long, value_name = "LAYER|OWNER=DAYS")]
    pub window: Vec<String>,
    /// How many times ordinary defects are looked for
    #[arg(long, value_name = "LAYER=TIMES")]
    pub search: Vec<String>,
    /// Fewer or more defects in the same code
    #[arg(long, value_name = "LAYER[:COMPONENT]=FACTOR")]
    pub density: Vec<String>,
    /// The same in another language: c, cpp, go or rust
    #[arg(long, value_name = "LAYER[:COMPONENT]=LANGUAGE")]
    pub rewrite: Vec<String>,
    /// Components that are not there
    #[arg(long, value_name = "LAYER:COMPONENT")]
    pub remove: Vec<String>,
    /// Fewer entry points of a boundary
    #[arg(long, value_name = "BOUNDARY=N")]
    pub narrow: Vec<String>,
    /// Fewer entry points, by a filter with so much code of its own
    #[arg(long, value_name = "BOUNDARY=N[:KB]")]
    pub guard: Vec<String>,
    /// Nested in a virtual machine
    #[arg(long)]
    pub nest: bool,
}

/// Arguments of `altaz diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The earlier profile (NAME.altaz)
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The later profile
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Phase to compare: start, serve or stop
    #[arg(long, default_value = "serve", value_name = "PHASE", value_parser = phase)]
    pub phase: altaz_profile::Phase,
    /// Form of the result, and its file: text, json or html; repeatable [default: text on standard
    /// output]
    #[arg(short, long, value_name = "FORMAT[=FILE]")]
    pub output: Vec<Output>,
    /// Functions and components listed of each kind, the surest first; JSON lists all
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub top: usize,
    /// Exit with 3 when anything is really new, with 4 when that cannot be told
    #[arg(long)]
    pub check: bool,
}

/// What `record` and `watch` are pointed at.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to observe (one of)")]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// Processes by id, with all that they start; repeatable or separated by commas
    #[arg(short, long, value_name = "PID", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// All processes of a control group
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// All processes of a systemd unit
    #[arg(long, value_name = "NAME")]
    pub unit: Option<String>,
    /// A container of podman, docker, containerd, runc, crun or gVisor, by id or name
    #[arg(long, value_name = "ID|NAME")]
    pub container: Option<String>,
    /// A command to run
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// How `record` and `watch` observe.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How to observe")]
pub struct ObserveArgs {
    /// Also observe userland functions of the processes' executables and libraries
    #[arg(long)]
    pub userland: bool,
    /// Where something cannot be observed on this machine, observe the rest
    #[arg(long)]
    pub partial: bool,
    /// How long to count system calls
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub syscalls: SyscallsWhen,
    /// Size of the kernel's trace buffer for each CPU, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    pub buffer: u32,
}

/// How long system calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum SyscallsWhen {
    /// All the time for a command; for what runs already, until nothing new is seen (a new one is
    /// noticed afterwards by its kernel function).
    #[default]
    Auto,
    /// All the time. Costs something at each system call.
    Always,
    /// Not at all.
    Never,
}

/// Arguments of `altaz record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// What is observed.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// Stop after this time (30s, 10m) [default: when the processes end, or at Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<std::time::Duration>,
    /// Stop when this share of the load's code has been seen, by each layer's coverage
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub until_complete: Option<f64>,
    /// Phase that the recording shows: start, serve or stop
    #[arg(long, value_name = "PHASE", default_value = "serve", value_parser = phase)]
    pub phase: altaz_profile::Phase,
    /// Name of the service in the profile [default: the program's]
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// The load in words; only profiles of the same load are compared
    #[arg(long, value_name = "TEXT")]
    pub load: Option<String>,
    /// The profile [default: SERVICE.altaz]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `altaz watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// What is observed.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// What is known already [default: what the service does until nothing new is seen]
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Without a baseline: learn until this long nothing new was seen
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub quiet_time: std::time::Duration,
    /// Stop after this time [default: at Ctrl-C, or when the processes end]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<std::time::Duration>,
    /// Serve metrics for Prometheus at this address (127.0.0.1:9188)
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<std::net::SocketAddr>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("write a share between 0 and 1, like 0.99".into()),
    }
}

fn phase(text: &str) -> Result<altaz_profile::Phase, String> {
    use altaz_profile::Phase;
    match Phase::parse(text) {
        Some(phase) if phase != Phase::Idle => Ok(phase),
        _ => Err("write start, serve or stop".into()),
    }
}

/// Arguments of `altaz join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Recording of the virtual machine, made on its host
    #[arg(value_name = "HOST.altaz")]
    pub host: PathBuf,
    /// Recording of the service, made in the guest at the same time
    #[arg(value_name = "GUEST.altaz")]
    pub guest: PathBuf,
    /// Where the joined profile goes
    #[arg(short, long, value_name = "FILE", default_value = "joined.altaz")]
    pub output: PathBuf,
}

/// Arguments of `altaz compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The service and its load
    #[arg(value_name = "SPEC.toml")]
    pub spec: PathBuf,
    /// Directory for compare.json, report.html and a profile per deployment; made if missing
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Deployments to measure, separated by commas; repeatable [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = deployment_name)]
    pub deployment: Vec<String>,
    /// Recordings of each deployment; more than one also says how well they agree
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Requests of the serve phase [default: the spec's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Requests per second [default: the spec's]
    #[arg(long, value_name = "R", value_parser = positive_rate)]
    pub rate: Option<f64>,
    /// Take the profiles that are in the directory already, if they are of the same service, image and load, and
    /// measure only what is missing
    #[arg(long)]
    pub keep: bool,
    /// Form of the result, and its file: text, json or html; repeatable [default: text on standard
    /// output]
    #[arg(short, long, value_name = "FORMAT[=FILE]")]
    pub output: Vec<Output>,
}

fn deployment_name(text: &str) -> Result<String, String> {
    if altaz_deploy::by_name(text).is_some() {
        return Ok(text.to_owned());
    }
    let names: Vec<_> = altaz_deploy::all().iter().map(|d| d.name()).collect();
    Err(format!("there are {}", names.join(", ")))
}

fn positive_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("write a number of requests per second, more than 0".into()),
    }
}

/// What every command works with.
pub struct Context {
    /// Speaks to the user.
    pub ui: Ui,
    /// Resolved settings.
    pub settings: Settings,
    /// Set by the first SIGINT or SIGTERM.
    pub interrupt: Arc<AtomicBool>,
    /// Whether text on standard output may be coloured.
    pub color: bool,
}

impl Context {
    /// Reads the settings and installs the signal handlers.
    ///
    /// # Errors
    /// When a settings file is wrong.
    pub fn new(global: &GlobalArgs, ui: Ui) -> anyhow::Result<Self> {
        Ok(Self {
            ui,
            settings: Settings::resolve(global)?,
            interrupt: signals::install()?,
            color: global.color.on(&std::io::stdout()),
        })
    }

    /// Whether the user asked to stop.
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst)
    }

    /// The same flag as the lab takes it.
    pub fn lab_interrupt(&self) -> altaz_lab::Interrupt {
        altaz_lab::Interrupt::from_flag(Arc::clone(&self.interrupt))
    }

    /// Columns of the terminal that standard output is, else a readable width.
    pub fn columns(&self) -> usize {
        rustix::termios::tcgetwinsize(rustix::stdio::stdout())
            .map_or(100, |size| usize::from(size.ws_col).clamp(40, 200))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_transfer_needs_two_paths() {
        let ok = Transfer { from: "a".into(), to: "/b:c".into() };
        assert_eq!("a:/b:c".parse(), Ok(ok));
        assert!("a".parse::<Transfer>().is_err());
        assert!(":b".parse::<Transfer>().is_err());
    }

    #[test]
    fn rates_are_positive_numbers() {
        assert_eq!(positive_rate("12.5"), Ok(12.5));
        for wrong in ["0", "-1", "nan", "inf", "fast"] {
            assert!(positive_rate(wrong).is_err(), "{wrong}");
        }
    }
}
